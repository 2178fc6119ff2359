-- What is looked for every second in a table that may be full of dead rows, and what a takeover leaves undone: a table that
-- was rewritten has no statistics, which autovacuum does not notice. Instances of the version before may run beside it.
CREATE INDEX turn_stopped ON "Turn" (instance_id) WHERE is_stopped;

DO $$ BEGIN RAISE INFO 'taking statistics'; END $$;
-- Not of empty tables: PostgreSQL would take them to be tiny, and scan them, until they are analysed again.
DO $$ BEGIN
    IF EXISTS (SELECT FROM "Chat") THEN
        ANALYZE "Persona", "ChatSession", "Chat", "ChatbotResponse";
    END IF;
END $$;
