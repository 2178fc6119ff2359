-- What became of a prompt that is sent again: one row with its session, its time, whether it is a prompt, its answer if there is one, and, if this instance is to answer it, which attempt that is and whether it was stopped; none if the id is free.
WITH known AS (
    SELECT c.id, c.session_id, c.created_at AS asked_at, c.is_user, r.chat_id AS answer_id, r.source_tool, r.response_payload
    FROM "Chat" c LEFT JOIN "ChatbotResponse" r ON r.prompt_chat_id = c.id AND r.push_no = 0
    WHERE c.id = $1
), claimed AS (
    -- A turn that stands in this instance's name, but that it does not know of, is one whose storing it believed to have failed.
    INSERT INTO "Turn" AS t (prompt_id, session_id, instance_id)
    SELECT id, session_id, $3::integer FROM known
    WHERE session_id = $2 AND answer_id IS NULL AND is_user
    ON CONFLICT (prompt_id) DO UPDATE SET attempt = t.attempt + 1 WHERE t.instance_id = excluded.instance_id
    RETURNING prompt_id, attempt, is_stopped
)
SELECT k.session_id, k.asked_at, k.is_user, claimed.attempt, claimed.is_stopped,
       k.answer_id AS id, k.id AS message_id, a.created_at, a.content, k.source_tool, k.response_payload::text AS payload
FROM known k LEFT JOIN "Chat" a ON a.id = k.answer_id LEFT JOIN claimed ON claimed.prompt_id = k.id
