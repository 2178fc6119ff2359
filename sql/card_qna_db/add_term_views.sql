-- Adds to the views of terms. The ids are compared as text without trailing blanks, since their type differs between deployments.
WITH seen AS (
    SELECT * FROM unnest($1::text[], $2::bigint[]) AS s (term_id, views)
), held AS (
    SELECT t.term_id FROM terms t WHERE rtrim(t.term_id::text) IN (SELECT term_id FROM seen) ORDER BY t.term_id FOR NO KEY UPDATE
)
UPDATE terms t SET views = COALESCE(t.views, 0) + s.views
FROM held, seen s WHERE t.term_id = held.term_id AND rtrim(t.term_id::text) = s.term_id
