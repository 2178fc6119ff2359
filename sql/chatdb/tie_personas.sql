-- Ties connected sessions, each at most once, to personas: for each its number, whether the session is connected, whether the persona exists, and the prompt that asked for this login, if no push has answered it yet.
WITH tie AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[]) WITH ORDINALITY AS t (session_id, persona_id, n)
), held AS (
    SELECT s.session_id FROM "ChatSession" s
    WHERE s.session_id = ANY ($1::uuid[]) AND s.instance_id IS NOT NULL
    ORDER BY s.session_id FOR NO KEY UPDATE
), tied AS (
    UPDATE "ChatSession" s SET persona_id = p.id
    FROM tie JOIN held USING (session_id) JOIN "Persona" p ON p.id = tie.persona_id
    WHERE s.session_id = ANY ($1::uuid[]) AND s.session_id = tie.session_id
)
SELECT tie.n, held.session_id IS NOT NULL AS is_connected,
       EXISTS (SELECT FROM "Persona" p WHERE p.id = tie.persona_id) AS is_persona, asked.prompt_id
FROM tie LEFT JOIN held USING (session_id)
LEFT JOIN LATERAL (
    SELECT r.prompt_chat_id AS prompt_id FROM "Chat" c JOIN "ChatbotResponse" r ON r.chat_id = c.id
    WHERE c.session_id = tie.session_id AND NOT c.is_user AND r.push_no = 0
      AND r.response_payload -> 'login_required' = 'true'
    ORDER BY c.created_at DESC LIMIT 1
) asked ON NOT EXISTS (
    SELECT FROM "ChatbotResponse" r WHERE r.prompt_chat_id = asked.prompt_id AND r.push_no > 0)
