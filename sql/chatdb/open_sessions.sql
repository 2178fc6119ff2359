-- Stores new sessions: number and time from which answers count.
WITH session AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::bytea[]) WITH ORDINALITY AS s (session_id, instance_id, key_hash, n)
), opened AS (
    INSERT INTO "ChatSession" (session_id, instance_id, key_hash) SELECT session_id, instance_id, key_hash FROM session
    -- Only when the statement is repeated after a lost connection: the ids are made here and are never used twice.
    ON CONFLICT (session_id) DO UPDATE SET instance_id = excluded.instance_id
    RETURNING session_id, last_answer_at
)
SELECT s.n, o.last_answer_at FROM session s JOIN opened o USING (session_id)
