-- How many logins a session has had in the minute that ends at logins_until. Instances of the version before may run beside it and count none.
ALTER TABLE "ChatSession"
    ADD COLUMN logins integer NOT NULL DEFAULT 0,
    ADD COLUMN logins_until timestamptz NOT NULL DEFAULT '-infinity';
