-- The $1 most viewed terms, ties by id. Texts come as the bytes that are stored, so that one that is badly encoded does not cost the others.
SELECT term_id, decode(replace(term::text, E'\\', E'\\\\'), 'escape') AS term,
       decode(replace(definition::text, E'\\', E'\\\\'), 'escape') AS definition, getdatabaseencoding()::text AS encoding
FROM terms ORDER BY COALESCE(views, 0) DESC, term_id LIMIT $1
