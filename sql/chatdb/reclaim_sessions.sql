-- Takes back those sessions of instance $1 that were ended while it was declared dead, where no newer socket has taken them: those, each with the number of its socket and the time up to which it was sent answers, that were superseded or have answers after that time.
WITH here AS (
    SELECT * FROM unnest($2::uuid[], $3::integer[], $4::timestamptz[]) AS h (session_id, connection_no, sent_at)
), held AS (
    SELECT s.session_id FROM "ChatSession" s JOIN here USING (session_id, connection_no)
    WHERE s.session_id = ANY ($2::uuid[]) AND s.instance_id IS NULL ORDER BY s.session_id FOR NO KEY UPDATE OF s
), reclaimed AS (
    UPDATE "ChatSession" s SET instance_id = $1, ended_at = NULL FROM held WHERE s.session_id = ANY ($2::uuid[]) AND s.session_id = held.session_id
)
SELECT here.session_id FROM here LEFT JOIN "ChatSession" s ON s.session_id = here.session_id AND s.session_id = ANY ($2::uuid[])
WHERE s.session_id IS NULL OR s.connection_no > here.connection_no OR s.last_answer_at > here.sent_at
