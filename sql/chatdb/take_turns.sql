-- Takes the turns that no living instance answers, and those in this instance's name that it does not have in hand ($2), a few times at most: prompts in their order, their times, which attempt at each it is, and whether it was stopped. What another instance is taking at this moment is skipped. A table that is full of dead rows is looked through only if $3: if there may be such turns.
WITH orphan AS (
    SELECT t.prompt_id FROM "Turn" t
    WHERE ($3 OR (SELECT pg_relation_size('"Turn"') < 4000000)) AND (
        NOT EXISTS (SELECT FROM "Instance" i WHERE i.id = t.instance_id)
        OR t.instance_id = $1 AND t.attempt < 5 AND NOT EXISTS (SELECT FROM unnest($2::uuid[]) AS h (id) WHERE h.id = t.prompt_id))
    FOR UPDATE OF t SKIP LOCKED
), taken AS (
    UPDATE "Turn" t SET instance_id = $1, attempt = t.attempt + 1
    WHERE t.prompt_id = ANY (ARRAY(SELECT prompt_id FROM orphan))
    RETURNING t.prompt_id, t.attempt, t.is_stopped
)
SELECT c.id, c.session_id, c.content, c.created_at, taken.attempt, taken.is_stopped, c.created_at < now() - interval '1 hour' AS is_too_old
FROM taken JOIN "Chat" c ON c.id = taken.prompt_id ORDER BY c.created_at
