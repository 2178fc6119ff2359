-- Sets the feedback of the newest answer under an id; no row if nothing was answered under it.
UPDATE "ChatbotResponse" SET is_helpful = $2
WHERE chat_id = (
    SELECT r.chat_id FROM "ChatbotResponse" r JOIN "Chat" c ON c.id = r.chat_id
    WHERE r.prompt_chat_id = $1 OR r.chat_id = $1
    ORDER BY c.created_at DESC LIMIT 1)
RETURNING chat_id
