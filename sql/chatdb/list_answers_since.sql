-- Answers and pushes of a session after a time, oldest first, the first $3 of them.
SELECT c.id, COALESCE(r.prompt_chat_id, c.id) AS message_id, c.created_at, c.content, r.source_tool, r.response_payload::text AS payload
FROM "Chat" c LEFT JOIN "ChatbotResponse" r ON r.chat_id = c.id
WHERE c.session_id = $1 AND NOT c.is_user AND c.created_at > $2
ORDER BY c.created_at LIMIT $3
