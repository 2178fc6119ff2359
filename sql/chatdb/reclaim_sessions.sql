-- Takes sessions back that were ended when this instance was given up, where no other socket has taken them since.
WITH claim AS (
    SELECT * FROM unnest($2::uuid[], $3::integer[]) AS c (session_id, connection_no)
), held AS (
    SELECT s.session_id FROM "ChatSession" s JOIN claim c ON c.session_id = s.session_id AND c.connection_no = s.connection_no
    WHERE s.instance_id IS NULL ORDER BY s.session_id FOR NO KEY UPDATE OF s
)
UPDATE "ChatSession" s SET instance_id = $1, ended_at = NULL FROM held WHERE s.session_id = held.session_id
