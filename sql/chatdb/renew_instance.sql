-- Renews the sign of life of instance $1: a row for each other instance with its sign, and whether it holds its lock of class $2; at least one row, which says whether this instance had been declared dead.
WITH renewed AS (
    INSERT INTO "Instance" AS i (id) VALUES ($1)
    ON CONFLICT (id) DO UPDATE SET beat = i.beat + 1, seen_at = now()
    RETURNING i.xmax = 0 AS was_given_up
)
SELECT r.was_given_up, i.id, i.beat, EXISTS (
    SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = $2::bigint::oid AND l.objid = i.id::bigint::oid
      AND l.objsubid = 2 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS is_locked
FROM renewed r LEFT JOIN "Instance" i ON i.id <> $1
