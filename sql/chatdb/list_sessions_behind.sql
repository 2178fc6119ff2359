-- Those of some sessions, each with the number of its socket and the time up to which it was sent answers, that a newer socket has superseded or that have answers after that time.
SELECT here.session_id
FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[]) AS here (session_id, connection_no, sent_at)
LEFT JOIN "ChatSession" s USING (session_id)
WHERE s.session_id IS NULL OR s.connection_no > here.connection_no OR s.last_answer_at > here.sent_at
