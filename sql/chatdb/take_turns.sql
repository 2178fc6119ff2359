-- Takes the turns that no living instance answers, and those of $2 that this instance took for not stored: prompts in their order. What another instance is taking at this moment is passed over.
WITH orphan AS (
    SELECT t.prompt_id FROM "Turn" t
    WHERE NOT EXISTS (SELECT FROM "Instance" i WHERE i.id = t.instance_id) OR t.prompt_id = ANY ($2::uuid[])
    FOR UPDATE OF t SKIP LOCKED
), taken AS (
    UPDATE "Turn" t SET instance_id = $1 FROM orphan o WHERE t.prompt_id = o.prompt_id RETURNING t.prompt_id
)
SELECT c.id, c.session_id, c.content, c.created_at < now() - interval '1 hour' AS is_too_old
FROM taken JOIN "Chat" c ON c.id = taken.prompt_id ORDER BY c.created_at
