-- What sessions, each at most once, have not been sent since a time: for each its number, the number of its newest socket and one of the first 10 answers and pushes after that time, oldest first, the tenth saying that there may be more; a single row of nulls if there are none, no row if there is no such session.
SELECT seen.n, s.connection_no, a.*
FROM unnest($1::uuid[], $2::timestamptz[]) WITH ORDINALITY AS seen (session_id, sent_at, n)
JOIN "ChatSession" s ON s.session_id = seen.session_id AND s.session_id = ANY ($1::uuid[])
LEFT JOIN LATERAL (
    SELECT c.id, COALESCE(r.prompt_chat_id, c.id) AS message_id, c.created_at, c.content, r.source_tool, r.response_payload::text AS payload,
           row_number() OVER (ORDER BY c.created_at) = 10 AS has_more
    FROM "Chat" c LEFT JOIN "ChatbotResponse" r ON r.chat_id = c.id
    WHERE c.session_id = s.session_id AND NOT c.is_user AND c.created_at > seen.sent_at
    ORDER BY c.created_at LIMIT 10
) a ON s.last_answer_at > seen.sent_at
ORDER BY seen.n, a.created_at
