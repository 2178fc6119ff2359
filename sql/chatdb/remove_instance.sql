-- Removes an instance that stopped or was lost, if its sign of life is still $2 (null: whatever it is), and ends its sessions: one row if it was there.
WITH removed AS (
    DELETE FROM "Instance" WHERE id = $1 AND ($2::bigint IS NULL OR beat = $2) RETURNING id
), held AS (
    SELECT session_id FROM "ChatSession" WHERE instance_id = $1 AND EXISTS (SELECT FROM removed) ORDER BY session_id FOR NO KEY UPDATE
), ended AS (
    UPDATE "ChatSession" s SET instance_id = NULL, ended_at = clock_timestamp()
    WHERE s.session_id = ANY (ARRAY(SELECT session_id FROM held))
)
SELECT id FROM removed
