-- Prompts of a session that another instance than $2 is answering, in their order.
SELECT t.prompt_id FROM "Turn" t JOIN "Chat" c ON c.id = t.prompt_id
WHERE t.session_id = $1 AND t.instance_id <> $2 ORDER BY c.created_at
