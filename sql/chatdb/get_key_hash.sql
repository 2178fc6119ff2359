-- What is stored of a session's key: null if the session has none, no row if there is no such session.
SELECT key_hash FROM "ChatSession" WHERE session_id = $1
