-- Marks a prompt of session $2 that has no answer yet as stopped: the instance that has it in hand; no row if there is none.
UPDATE "Turn" SET is_stopped = true WHERE prompt_id = $1 AND session_id = $2 RETURNING instance_id
