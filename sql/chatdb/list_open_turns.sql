-- Prompts of a session that other instances than $2 have in hand, and which.
SELECT prompt_id, instance_id FROM "Turn" WHERE session_id = $1 AND instance_id <> $2
