-- Adds a persona or changes its description: one row that says whether it was added; no row if nothing changed.
WITH updated AS (
    UPDATE "Persona" SET description = $2::varchar WHERE name = $1::varchar AND description IS DISTINCT FROM $2::varchar RETURNING id
), added AS (
    -- Avoids a conflict in the usual case: each would use up an id.
    INSERT INTO "Persona" (name, description) SELECT $1::varchar, $2::varchar
    WHERE NOT EXISTS (SELECT FROM "Persona" WHERE name = $1::varchar)
    ON CONFLICT (name) DO NOTHING RETURNING id
)
SELECT true AS added FROM added UNION ALL SELECT false FROM updated
