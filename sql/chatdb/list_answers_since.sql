-- What sessions, each last sent an answer of a time, have not been sent: the number of the session's newest socket and one of its first $3 answers and pushes since, oldest first; a single row without one if there are none.
SELECT s.session_id, s.connection_no, a.*
FROM unnest($1::uuid[], $2::timestamptz[]) AS seen (session_id, last_sent)
JOIN "ChatSession" s USING (session_id)
LEFT JOIN LATERAL (
    SELECT c.id, COALESCE(r.prompt_chat_id, c.id) AS message_id, c.created_at, c.content, r.source_tool, r.response_payload::text AS payload
    FROM "Chat" c LEFT JOIN "ChatbotResponse" r ON r.chat_id = c.id
    WHERE c.session_id = s.session_id AND NOT c.is_user AND c.created_at > seen.last_sent
    ORDER BY c.created_at LIMIT $3
) a ON s.last_answer_at > seen.last_sent
ORDER BY a.created_at
