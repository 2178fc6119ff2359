-- Tells an instance, on its own channel, that something happened to a session.
SELECT pg_notify($1, $2)
