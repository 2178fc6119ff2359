-- Renews the sign of life of instance $1, the count $3, which is written into its row only if $4: a row for each other instance with its sign, what of it stands in its row, whether it holds its lock of class $2, and whether it shows its sign there; at least one row, which says whether this instance had been declared dead, how full the queue of notices is, and the time.
WITH renewed AS (
    INSERT INTO "Instance" AS i (id, beat) SELECT $1, $3::bigint WHERE $4 OR NOT EXISTS (SELECT FROM "Instance" WHERE id = $1)
    ON CONFLICT (id) DO UPDATE SET beat = excluded.beat, seen_at = now()
    RETURNING i.xmax = 0 AS was_given_up
), held AS (
    -- The connection that holds an instance's lock shows its sign in its name: rewriting a row every second would leave
    -- so many dead ones under somebody's long transaction that each look at it took longer than the one before.
    SELECT l.objid::bigint AS id, substring(a.application_name FROM ' beat (\d{1,18})$')::bigint AS beat
    FROM pg_locks l LEFT JOIN LATERAL pg_stat_get_activity(l.pid) a ON true
    WHERE l.locktype = 'advisory' AND l.classid = $2::bigint::oid AND l.objsubid = 2
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT EXISTS (SELECT FROM renewed WHERE was_given_up) AS was_given_up,
       i.id, i.beat AS written, GREATEST(i.beat, held.beat) AS beat, held.id IS NOT NULL AS is_locked, held.beat IS NOT NULL AS is_shown,
       pg_notification_queue_usage() AS queue_usage, clock_timestamp() AS now
FROM (SELECT) one LEFT JOIN "Instance" i ON i.id <> $1 LEFT JOIN held ON held.id = i.id
