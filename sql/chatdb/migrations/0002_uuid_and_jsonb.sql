-- Takes a database of the FastAPI version over in place: ids become uuid, payloads jsonb, foreign keys get our names.
DO $$
DECLARE
    found record;
    ours regclass[] := ARRAY['"Persona"', '"ChatSession"', '"Chat"', '"ChatbotResponse"']::regclass[];
BEGIN
    -- The types on both sides of a foreign key change together, so every key is dropped first, whatever its name.
    FOR found IN
        SELECT conrelid::regclass AS tab, conname FROM pg_constraint
        WHERE contype = 'f' AND conrelid = ANY (ours) AND confrelid = ANY (ours)
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.tab, found.conname);
    END LOOP;
    -- A column of theirs that we do not know and that their program filled in must not refuse our rows.
    FOR found IN
        SELECT a.attrelid::regclass AS tab, a.attname FROM pg_attribute a
        WHERE a.attrelid = ANY (ours) AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef
          AND a.attidentity = '' AND a.attname NOT IN ('id', 'session_id', 'chat_id', 'name', 'is_user', 'content')
          AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY (i.indkey))
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', found.tab, found.attname);
    END LOOP;
END $$;

ALTER TABLE "Persona"
    ALTER COLUMN created_at SET DEFAULT now();

ALTER TABLE "ChatSession"
    ALTER COLUMN session_id TYPE uuid USING session_id::text::uuid,
    ALTER COLUMN created_at SET DEFAULT now();

ALTER TABLE "Chat"
    ALTER COLUMN id TYPE uuid USING id::text::uuid,
    ALTER COLUMN session_id TYPE uuid USING session_id::text::uuid,
    ALTER COLUMN content TYPE text,
    ALTER COLUMN created_at SET DEFAULT now();

-- json keeps an escaped NUL that jsonb refuses; JSON's own null says the same as no payload.
ALTER TABLE "ChatbotResponse"
    ALTER COLUMN chat_id TYPE uuid USING chat_id::text::uuid,
    ALTER COLUMN prompt_chat_id TYPE uuid USING prompt_chat_id::text::uuid,
    ALTER COLUMN source_tool TYPE text,
    ALTER COLUMN response_payload TYPE jsonb USING NULLIF(
        regexp_replace(response_payload::text, '(^|[^\\])((\\\\)*)\\u0000', '\1\2', 'g')::jsonb, 'null'::jsonb);

ALTER TABLE "ChatSession"
    ADD CONSTRAINT chat_session_persona FOREIGN KEY (persona_id) REFERENCES "Persona" (id) ON DELETE SET NULL;

ALTER TABLE "Chat"
    ADD CONSTRAINT chat_session FOREIGN KEY (session_id) REFERENCES "ChatSession" (session_id) ON DELETE CASCADE,
    ADD CONSTRAINT chat_persona FOREIGN KEY (persona_id) REFERENCES "Persona" (id) ON DELETE SET NULL;

ALTER TABLE "ChatbotResponse"
    ADD CONSTRAINT response_chat FOREIGN KEY (chat_id) REFERENCES "Chat" (id) ON DELETE CASCADE,
    ADD CONSTRAINT response_prompt FOREIGN KEY (prompt_chat_id) REFERENCES "Chat" (id) ON DELETE SET NULL;
