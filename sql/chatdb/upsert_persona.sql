-- Adds a persona or changes its description: one row that says whether it was added; no row if nothing changed.
INSERT INTO "Persona" AS p (name, description) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET description = excluded.description WHERE p.description IS DISTINCT FROM excluded.description
RETURNING p.xmax = 0 AS added
