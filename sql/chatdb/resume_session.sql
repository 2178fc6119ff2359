-- Gives a session to a new socket of instance $2: one row with the instance before, the socket's number, the time of the last answer and the prompts of the last minute; none if it is unknown or ended more than $3 hours ago.
WITH before AS (
    SELECT session_id, instance_id FROM "ChatSession"
    WHERE session_id = $1 AND (instance_id IS NOT NULL OR ended_at > now() - $3::float8 * interval '1 hour')
    FOR NO KEY UPDATE
)
UPDATE "ChatSession" s SET instance_id = $2, connection_no = s.connection_no + 1, ended_at = NULL
FROM before WHERE s.session_id = $1 AND s.session_id = before.session_id
RETURNING before.instance_id AS instance_before, s.connection_no, s.last_answer_at,
    (SELECT count(*) FROM "Chat" c WHERE c.session_id = s.session_id AND c.is_user
        AND c.created_at > now() - interval '1 minute') AS prompts
