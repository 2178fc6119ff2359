-- Stores answers and pushes, each session at most once, with the prompt where that is not stored yet: number, id, the instance that holds the session's socket, the time of the session's answer before, and its own time; null if it was answered before, or its prompt was stored before. All are later than what the session has, wherever the clock is; ids stand in arrays as well, so that no plan can become a scan of a table full of dead rows.
WITH answer AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::boolean[], $9::text[])
        WITH ORDINALITY AS a (session_id, prompt_id, chat_id, content, source_tool, payload, sent_at, is_push, prompt, n)
), held AS (
    -- Locked in one order everywhere, so that the statements of two instances never wait for each other.
    SELECT s.session_id, s.persona_id, s.instance_id, s.last_answer_at AS previous_at, s.pushes,
           (SELECT c.created_at FROM "Chat" c WHERE c.session_id = s.session_id ORDER BY c.created_at DESC LIMIT 1) + interval '1 microsecond' AS earliest
    FROM "ChatSession" s WHERE s.session_id = ANY ($1::uuid[])
    ORDER BY s.session_id FOR NO KEY UPDATE
), asked AS (
    INSERT INTO "Chat" (id, session_id, persona_id, is_user, content, created_at)
    SELECT a.prompt_id, a.session_id, h.persona_id, true, a.prompt, GREATEST(clock_timestamp(), h.earliest)
    FROM answer a JOIN held h USING (session_id) WHERE a.prompt IS NOT NULL
    ON CONFLICT (id) DO NOTHING
    RETURNING id, created_at
), response AS (
    INSERT INTO "ChatbotResponse" (chat_id, prompt_chat_id, source_tool, response_payload, push_no)
    SELECT a.chat_id, a.prompt_id, a.source_tool, a.payload::jsonb,
           CASE WHEN a.is_push THEN held.pushes + 1 ELSE 0 END
    FROM answer a JOIN held USING (session_id)
    WHERE a.prompt IS NULL OR a.prompt_id IN (SELECT id FROM asked)
    ON CONFLICT DO NOTHING
    RETURNING chat_id
), moved AS (
    UPDATE "ChatSession" s
    SET last_answer_at = GREATEST(
            s.last_answer_at + interval '1 microsecond',
            COALESCE(a.sent_at, GREATEST(clock_timestamp(), h.earliest, q.created_at + interval '1 microsecond'))),
        pushes = s.pushes + a.is_push::integer
    FROM answer a JOIN response USING (chat_id) JOIN held h USING (session_id) LEFT JOIN asked q ON q.id = a.prompt_id
    WHERE s.session_id = a.session_id AND s.session_id = ANY ($1::uuid[])
    RETURNING s.session_id, s.last_answer_at
), stored AS (
    INSERT INTO "Chat" (id, session_id, persona_id, is_user, content, created_at)
    SELECT a.chat_id, a.session_id, h.persona_id, false, a.content, m.last_answer_at
    FROM answer a JOIN response USING (chat_id) JOIN held h USING (session_id) JOIN moved m USING (session_id)
), closed AS (
    DELETE FROM "Turn" t USING answer a WHERE t.prompt_id = ANY ($2::uuid[]) AND t.prompt_id = a.prompt_id AND NOT a.is_push AND a.prompt IS NULL
)
SELECT a.n, a.chat_id, h.instance_id, h.previous_at, m.last_answer_at AS created_at
FROM answer a JOIN held h USING (session_id) LEFT JOIN moved m USING (session_id)
