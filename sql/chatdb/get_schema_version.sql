-- The name of the newest migration that was applied.
SELECT max(name) AS version FROM "SchemaMigration"
