-- Tells instances, each on its own channel, that something happened to a session: the number of each word.
SELECT n, pg_notify(channel, session_id) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS word (session_id, channel, n)
