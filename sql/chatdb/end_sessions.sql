-- Ends sessions whose socket closed, unless another socket has taken them: the number of each row.
WITH ending AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[]) WITH ORDINALITY AS e (session_id, connection_no, n)
), held AS (
    SELECT s.session_id FROM "ChatSession" s JOIN ending e ON e.session_id = s.session_id AND e.connection_no = s.connection_no
    WHERE s.session_id = ANY ($1::uuid[])
    ORDER BY s.session_id FOR NO KEY UPDATE OF s
), ended AS (
    UPDATE "ChatSession" s SET instance_id = NULL, ended_at = clock_timestamp()
    FROM held, ending e
    WHERE s.session_id = ANY ($1::uuid[]) AND s.session_id = held.session_id AND e.session_id = s.session_id AND e.connection_no = s.connection_no
)
SELECT n FROM ending
