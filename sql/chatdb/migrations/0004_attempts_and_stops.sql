-- How often a turn was taken by an instance, and whether its visitor has stopped it. Instances of the version before may run beside it.
ALTER TABLE "Turn"
    ADD COLUMN attempt integer NOT NULL DEFAULT 1,
    ADD COLUMN is_stopped boolean NOT NULL DEFAULT false;
