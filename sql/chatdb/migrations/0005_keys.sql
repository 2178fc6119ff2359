-- The SHA-256 of the key that a session is gone on with. Instances of the version before may run beside it and open sessions without one.
ALTER TABLE "ChatSession" ADD COLUMN key_hash bytea;
