-- Brings the sample terms in line with $1, demo/data/terms.json as jsonb. Views, and rows of other origin, stay.
MERGE INTO terms AS t
USING jsonb_to_recordset($1::jsonb)
    AS s (category text, term text, definition text, views integer)
ON t.term = s.term
WHEN MATCHED AND t.is_sample
    AND (t.category, t.definition) IS DISTINCT FROM (s.category, s.definition) THEN
    UPDATE SET category = s.category, definition = s.definition, updated_at = now()
WHEN NOT MATCHED BY SOURCE AND t.is_sample THEN
    DELETE
WHEN NOT MATCHED THEN
    INSERT (category, term, definition, views, is_sample)
    VALUES (s.category, s.term, s.definition, s.views, true)
