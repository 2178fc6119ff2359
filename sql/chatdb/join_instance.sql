-- Registers a new instance: its id, and the time.
INSERT INTO "Instance" DEFAULT VALUES RETURNING id, clock_timestamp() AS now
