-- Takes the turns that no living instance answers, and those of $2 that this instance believed not stored: prompts in their order, which attempt at each it is, and whether it was stopped. What another instance is taking at this moment is skipped.
WITH orphan AS (
    SELECT t.prompt_id FROM "Turn" t
    WHERE NOT EXISTS (SELECT FROM "Instance" i WHERE i.id = t.instance_id) OR t.prompt_id = ANY ($2::uuid[])
    FOR UPDATE OF t SKIP LOCKED
), taken AS (
    UPDATE "Turn" t SET instance_id = $1, attempt = t.attempt + 1 FROM orphan o WHERE t.prompt_id = o.prompt_id
    RETURNING t.prompt_id, t.attempt, t.is_stopped
)
SELECT c.id, c.session_id, c.content, taken.attempt, taken.is_stopped, c.created_at < now() - interval '1 hour' AS is_too_old
FROM taken JOIN "Chat" c ON c.id = taken.prompt_id ORDER BY c.created_at
