-- The $1 most viewed FAQ entries, ties by id.
SELECT faq_id, question, answer, COALESCE(views, 0) AS views FROM faqs ORDER BY COALESCE(views, 0) DESC, faq_id LIMIT $1
