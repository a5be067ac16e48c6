-- notify: send notifications: $1 channels, $2 payloads.
select count(pg_notify(m.channel, m.payload)) from unnest($1::text[], $2::text[]) as m(channel, payload)
