-- The newest $2 prompts and answers of a session, oldest first; one row of nulls if it has none, no row if there is no such session.
SELECT h.* FROM "ChatSession" s LEFT JOIN LATERAL (
    SELECT c.is_user, c.content, COALESCE(r.prompt_chat_id, c.id) AS message_id, c.created_at,
           r.is_helpful, r.source_tool, r.response_payload::text AS payload, c.id
    FROM "Chat" c LEFT JOIN "ChatbotResponse" r ON r.chat_id = c.id
    WHERE c.session_id = s.session_id
    ORDER BY c.created_at DESC, c.is_user, c.id DESC LIMIT $2
) h ON true
WHERE s.session_id = $1
ORDER BY h.created_at, h.is_user DESC, h.id
