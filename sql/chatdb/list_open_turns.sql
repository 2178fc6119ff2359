-- Prompts of a session that other instances than $2 have in hand.
SELECT prompt_id FROM "Turn" WHERE session_id = $1 AND instance_id <> $2
