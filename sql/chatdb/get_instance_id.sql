-- The instance that holds a session's socket, null if none does; no row if the session is unknown.
SELECT instance_id FROM "ChatSession" WHERE session_id = $1
