-- Ties a connected session to a persona: one row that says whether the session is connected, whether the persona exists, and the prompt that asked for this login, if no push has answered it yet.
WITH session AS (
    SELECT session_id FROM "ChatSession" WHERE session_id = $1 AND instance_id IS NOT NULL
), persona AS (
    SELECT id FROM "Persona" WHERE id = $2
), tied AS (
    UPDATE "ChatSession" s SET persona_id = persona.id FROM persona WHERE s.session_id = (SELECT session_id FROM session)
), asked AS (
    SELECT r.prompt_chat_id AS prompt_id FROM "Chat" c JOIN "ChatbotResponse" r ON r.chat_id = c.id
    WHERE c.session_id = $1 AND NOT c.is_user AND r.push_no = 0 AND r.response_payload -> 'login_required' = 'true'
    ORDER BY c.created_at DESC LIMIT 1
)
SELECT EXISTS (SELECT FROM session) AS is_connected, EXISTS (SELECT FROM persona) AS is_persona,
       (SELECT prompt_id FROM asked WHERE NOT EXISTS (
           SELECT FROM "ChatbotResponse" r WHERE r.prompt_chat_id = asked.prompt_id AND r.push_no > 0)) AS prompt_id
