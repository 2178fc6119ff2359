-- Adds to the views of faqs. The ids are compared as text without trailing blanks, since their type differs between deployments.
WITH seen AS (
    SELECT * FROM unnest($1::text[], $2::bigint[]) AS s (faq_id, views)
), held AS (
    SELECT t.faq_id FROM faqs t WHERE rtrim(t.faq_id::text) IN (SELECT faq_id FROM seen) ORDER BY t.faq_id FOR NO KEY UPDATE
)
UPDATE faqs t SET views = COALESCE(t.views, 0) + s.views
FROM held, seen s WHERE t.faq_id = held.faq_id AND rtrim(t.faq_id::text) = s.faq_id
