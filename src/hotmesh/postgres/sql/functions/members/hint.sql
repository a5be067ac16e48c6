-- hint: send a notification that only saves time, unless the queue of notifications is so full that a commit could fail by it.
-- The queue is one for the whole server, and fills up behind a session that listens and keeps a transaction open. Whoever
-- misses a hint finds what it was about by looking: it costs latency, where a refused commit would cost the commit.
create or replace function mesh.hint(p_channel text, p_payload text) returns void language plpgsql as $$
begin
    if pg_notification_queue_usage() < 0.75 then
        perform pg_notify(p_channel, p_payload);
    end if;
end
$$;
