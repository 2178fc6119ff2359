-- The $1 most viewed terms, ties by id.
SELECT term_id, term, definition FROM terms ORDER BY COALESCE(views, 0) DESC, term_id LIMIT $1
