-- notify: send notifications: $1 channels, $2 payloads.
-- A queue that was full stays so until somebody asks how full it is: that throws away what all have read.
with queue as materialized (select pg_notification_queue_usage() as usage)
select count(pg_notify(m.channel, m.payload)) from queue cross join unnest($1::text[], $2::text[]) as m(channel, payload)
