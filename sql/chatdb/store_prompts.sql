-- Stores new prompts and opens their turns: the number of each row stored; a row missing was there before, or its session was not.
WITH prompt AS (
    SELECT p.n, p.id, p.session_id, s.persona_id, p.content, p.instance_id
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[]) WITH ORDINALITY AS p (id, session_id, content, instance_id, n)
    JOIN "ChatSession" s ON s.session_id = p.session_id
), stored AS (
    INSERT INTO "Chat" (id, session_id, persona_id, is_user, content, created_at)
    SELECT id, session_id, persona_id, true, content, clock_timestamp() FROM prompt ORDER BY n
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), opened AS (
    INSERT INTO "Turn" (prompt_id, session_id, instance_id)
    SELECT p.id, p.session_id, p.instance_id FROM prompt p JOIN stored ON stored.id = p.id
)
SELECT p.n FROM prompt p JOIN stored ON stored.id = p.id
