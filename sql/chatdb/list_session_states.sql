-- Where sessions stand: who holds them with which socket, and the time of the last answer.
SELECT session_id, instance_id, connection_no, last_answer_at FROM "ChatSession" WHERE session_id = ANY ($1::uuid[])
