-- Closes the turn of a prompt whose answer the database refuses.
DELETE FROM "Turn" WHERE prompt_id = $1
