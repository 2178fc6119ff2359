-- Stores new prompts and opens their turns: the number and the time of each row stored; a row missing was there before, or its session was not. Each is later than what its session has and than $5, what its visitor has been shown, wherever the clock is.
WITH prompt AS (
    SELECT p.n, p.id, p.session_id, s.persona_id, p.content, p.instance_id,
           GREATEST((SELECT c.created_at FROM "Chat" c WHERE c.session_id = p.session_id ORDER BY c.created_at DESC LIMIT 1), p.shown_at) + p.n * interval '1 microsecond' AS earliest
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::timestamptz[])
        WITH ORDINALITY AS p (id, session_id, content, instance_id, shown_at, n)
    JOIN "ChatSession" s ON s.session_id = p.session_id AND s.session_id = ANY ($2::uuid[])
), stored AS (
    INSERT INTO "Chat" (id, session_id, persona_id, is_user, content, created_at)
    SELECT id, session_id, persona_id, true, content, GREATEST(clock_timestamp(), earliest) FROM prompt ORDER BY n
    ON CONFLICT (id) DO NOTHING
    RETURNING id, created_at
), opened AS (
    INSERT INTO "Turn" (prompt_id, session_id, instance_id)
    SELECT p.id, p.session_id, p.instance_id FROM prompt p JOIN stored ON stored.id = p.id
)
SELECT p.n, stored.created_at FROM prompt p JOIN stored ON stored.id = p.id
