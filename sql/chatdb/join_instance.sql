-- Registers a new instance: its id.
INSERT INTO "Instance" DEFAULT VALUES RETURNING id
