-- All personas by id.
SELECT id, name, description FROM "Persona" ORDER BY id
