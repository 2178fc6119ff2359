-- Takes a database of the FastAPI version over in place: ids become uuid, payloads jsonb, foreign keys get our names.
-- What is said by RAISE INFO goes into the gateway's log: with millions of rows each step takes a while.
SET LOCAL maintenance_work_mem = '256MB';
SET LOCAL work_mem = '64MB';

-- A view on a column keeps its type from being changed: other teams' views are put aside and made again at the end, with
-- their owners and grants. A materialized view is not put aside; the error names it.
CREATE TEMPORARY TABLE view_aside ON COMMIT DROP AS
WITH RECURSIVE dependent AS (
    SELECT r.ev_class AS oid, 1 AS depth
    FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    WHERE d.refclassid = 'pg_class'::regclass AND r.ev_class <> d.refobjid
      AND d.refobjid = ANY (ARRAY['"Persona"', '"ChatSession"', '"Chat"', '"ChatbotResponse"']::regclass[])
    UNION
    SELECT r.ev_class, v.depth + 1
    FROM dependent v JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.oid
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    WHERE r.ev_class <> v.oid
)
SELECT format('%I.%I', n.nspname, c.relname) AS name, max(v.depth) AS depth, pg_get_viewdef(c.oid) AS definition,
       pg_get_userbyid(c.relowner) AS owner, c.relacl AS acl, c.reloptions AS options
FROM dependent v JOIN pg_class c ON c.oid = v.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' GROUP BY c.oid, n.nspname, c.relname, c.relowner, c.relacl, c.reloptions;

DO $$
DECLARE
    aside record;
BEGIN
    FOR aside IN SELECT name FROM view_aside ORDER BY depth DESC LOOP
        EXECUTE 'DROP VIEW ' || aside.name;
    END LOOP;
END $$;

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

DO $$ BEGIN RAISE INFO 'rewriting ChatSession'; END $$;
ALTER TABLE "ChatSession"
    ALTER COLUMN session_id TYPE uuid USING session_id::text::uuid,
    ALTER COLUMN created_at SET DEFAULT now();

DO $$ BEGIN RAISE INFO 'rewriting Chat'; END $$;
ALTER TABLE "Chat"
    ALTER COLUMN id TYPE uuid USING id::text::uuid,
    ALTER COLUMN session_id TYPE uuid USING session_id::text::uuid,
    ALTER COLUMN content TYPE text,
    ALTER COLUMN created_at SET DEFAULT now();

DO $$ BEGIN RAISE INFO 'rewriting ChatbotResponse'; END $$;
-- json keeps an escaped NUL that jsonb refuses; JSON's own null says the same as no payload.
ALTER TABLE "ChatbotResponse"
    ALTER COLUMN chat_id TYPE uuid USING chat_id::text::uuid,
    ALTER COLUMN prompt_chat_id TYPE uuid USING prompt_chat_id::text::uuid,
    ALTER COLUMN source_tool TYPE text,
    ALTER COLUMN response_payload TYPE jsonb USING NULLIF(
        CASE WHEN response_payload::text LIKE '%u0000%'
             THEN regexp_replace(response_payload::text, '(^|[^\\])((\\\\)*)\\u0000', '\1\2', 'g')
             ELSE response_payload::text END::jsonb,
        'null'::jsonb);

-- For the joins that follow; autovacuum does not notice that a table was rewritten.
-- Not of empty tables: PostgreSQL would take them to be tiny, and scan them, until they are analysed again.
DO $$ BEGIN
    IF EXISTS (SELECT FROM "Chat") THEN
        ANALYZE "ChatSession", "Chat", "ChatbotResponse";
    END IF;
END $$;

DO $$ BEGIN RAISE INFO 'checking foreign keys'; END $$;
ALTER TABLE "ChatSession"
    ADD CONSTRAINT chat_session_persona FOREIGN KEY (persona_id) REFERENCES "Persona" (id) ON DELETE SET NULL;

ALTER TABLE "Chat"
    ADD CONSTRAINT chat_session FOREIGN KEY (session_id) REFERENCES "ChatSession" (session_id) ON DELETE CASCADE,
    ADD CONSTRAINT chat_persona FOREIGN KEY (persona_id) REFERENCES "Persona" (id) ON DELETE SET NULL;

ALTER TABLE "ChatbotResponse"
    ADD CONSTRAINT response_chat FOREIGN KEY (chat_id) REFERENCES "Chat" (id) ON DELETE CASCADE,
    ADD CONSTRAINT response_prompt FOREIGN KEY (prompt_chat_id) REFERENCES "Chat" (id) ON DELETE SET NULL;

DO $$
DECLARE
    aside record;
    privilege record;
BEGIN
    FOR aside IN SELECT * FROM view_aside ORDER BY depth LOOP
        EXECUTE format('CREATE VIEW %s %s AS %s', aside.name,
                       COALESCE('WITH (' || array_to_string(aside.options, ', ') || ')', ''), aside.definition);
        EXECUTE format('ALTER VIEW %s OWNER TO %I', aside.name, aside.owner);
        FOR privilege IN SELECT * FROM aclexplode(aside.acl) LOOP
            EXECUTE format('GRANT %s ON %s TO %s %s', privilege.privilege_type, aside.name,
                           CASE WHEN privilege.grantee = 0 THEN 'PUBLIC' ELSE privilege.grantee::regrole::text END,
                           CASE WHEN privilege.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END);
        END LOOP;
    END LOOP;
END $$;
