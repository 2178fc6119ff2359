-- The persona of a session that is connected, or that has a turn in hand; no row otherwise.
SELECT persona_id FROM "ChatSession" s
WHERE session_id = $1 AND (instance_id IS NOT NULL OR EXISTS (SELECT FROM "Turn" t WHERE t.session_id = s.session_id))
