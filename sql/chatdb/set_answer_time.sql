-- Gives an answer whose storing had seemed to fail the time under which it was shown, unless another lies between: no row.
UPDATE "Chat" c SET created_at = $2
WHERE c.id = $1 AND c.created_at > $2 AND NOT EXISTS (
    SELECT FROM "Chat" o
    WHERE o.session_id = c.session_id AND NOT o.is_user AND o.created_at >= $2 AND o.created_at < c.created_at)
