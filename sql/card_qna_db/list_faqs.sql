-- The $1 most viewed FAQ entries, ties by id. Texts come as the bytes that are stored, so that one that is badly encoded does not cost the others.
SELECT faq_id, decode(replace(question::text, E'\\', E'\\\\'), 'escape') AS question,
       decode(replace(answer::text, E'\\', E'\\\\'), 'escape') AS answer,
       COALESCE(views, 0) AS views, getdatabaseencoding()::text AS encoding
FROM faqs ORDER BY COALESCE(views, 0) DESC, faq_id LIMIT $1
