-- Whether a prompt still waits for its answer.
SELECT EXISTS (SELECT FROM "Turn" WHERE prompt_id = $1) AS is_open
