-- The personas of sessions that are connected, or that have a turn in hand: the number of each and its persona; a row missing is neither.
SELECT asked.n, s.persona_id
FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (session_id, n) JOIN "ChatSession" s USING (session_id)
WHERE s.session_id = ANY ($1::uuid[])
  AND (s.instance_id IS NOT NULL OR (SELECT true FROM "Turn" t WHERE t.session_id = s.session_id LIMIT 1))
