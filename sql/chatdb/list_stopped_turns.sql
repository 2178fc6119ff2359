-- Prompts that instance $1 has in hand and whose visitors have stopped them.
SELECT prompt_id FROM "Turn" WHERE instance_id = $1 AND is_stopped
