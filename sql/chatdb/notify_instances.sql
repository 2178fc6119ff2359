-- Sends notices to instances, each on one of its channels: the number of each.
SELECT n, pg_notify(channel, payload) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS notice (payload, channel, n)
