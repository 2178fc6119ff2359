-- Brings the sample FAQs in line with $1, demo/data/faqs.json as jsonb. Views, and rows of other origin, stay.
MERGE INTO faqs AS f
USING jsonb_to_recordset($1::jsonb)
    AS s (category text, question text, keywords text, answer text, views integer)
ON f.question = s.question
WHEN MATCHED AND f.is_sample
    AND (f.category, f.keywords, f.answer) IS DISTINCT FROM (s.category, s.keywords, s.answer) THEN
    UPDATE SET category = s.category, keywords = s.keywords, answer = s.answer, updated_at = now()
WHEN NOT MATCHED BY SOURCE AND f.is_sample THEN
    DELETE
WHEN NOT MATCHED THEN
    INSERT (category, question, keywords, answer, views, is_sample)
    VALUES (s.category, s.question, s.keywords, s.answer, s.views, true)
