-- Ties connected sessions, each at most once, to personas, so many times a minute: for each its number, whether the session is connected, whether one more login is allowed, whether the persona exists, and the prompt that asked for this login, if no push has answered it yet.
WITH tie AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[])
        WITH ORDINALITY AS t (session_id, persona_id, allowed, n)
), held AS (
    SELECT s.session_id FROM "ChatSession" s
    WHERE s.session_id = ANY ($1::uuid[]) AND s.instance_id IS NOT NULL
    ORDER BY s.session_id FOR NO KEY UPDATE
), counted AS (
    UPDATE "ChatSession" s
    SET persona_id = COALESCE(p.id, s.persona_id),
        logins = CASE WHEN s.logins_until > now() THEN s.logins + 1 ELSE 1 END,
        logins_until = CASE WHEN s.logins_until > now() THEN s.logins_until ELSE now() + interval '1 minute' END
    FROM tie JOIN held USING (session_id) LEFT JOIN "Persona" p ON p.id = tie.persona_id
    WHERE s.session_id = ANY ($1::uuid[]) AND s.session_id = tie.session_id AND (s.logins < tie.allowed OR s.logins_until <= now())
    RETURNING s.session_id
)
SELECT tie.n, held.session_id IS NOT NULL AS is_connected, counted.session_id IS NOT NULL AS is_allowed,
       EXISTS (SELECT FROM "Persona" p WHERE p.id = tie.persona_id) AS is_persona, asked.prompt_id
FROM tie LEFT JOIN held USING (session_id) LEFT JOIN counted USING (session_id)
LEFT JOIN LATERAL (
    SELECT r.prompt_chat_id AS prompt_id FROM "Chat" c JOIN "ChatbotResponse" r ON r.chat_id = c.id
    WHERE c.session_id = counted.session_id AND NOT c.is_user AND r.push_no = 0
      AND r.response_payload -> 'login_required' = 'true'
    ORDER BY c.created_at DESC LIMIT 1
) asked ON NOT EXISTS (
    SELECT FROM "ChatbotResponse" r WHERE r.prompt_chat_id = asked.prompt_id AND r.push_no > 0)
