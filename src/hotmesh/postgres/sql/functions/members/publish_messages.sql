-- publish_messages: send messages to members, each on its channel; one over p_limit bytes is stored, and its number sent.
-- Writes   mesh.quorum_message, from which what is older than a minute goes.
create or replace function mesh.publish_messages(p_app text, p_channels text[], p_messages text[], p_limit integer)
returns void language plpgsql as $$
declare
    v_id bigint;
begin
    -- A queue that was full stays so until somebody asks how full it is: that throws away what all have read.
    perform pg_notification_queue_usage();
    for i in 1 .. cardinality(p_channels) loop
        if octet_length(p_messages[i]) <= p_limit then
            perform pg_notify(p_channels[i], p_messages[i]);
        else
            delete from mesh.quorum_message as q where q.expires_at <= mesh.clock();
            insert into mesh.quorum_message (app_id, message, expires_at)
            values (p_app, p_messages[i], mesh.clock() + interval '1 minute') returning id into v_id;
            perform pg_notify(p_channels[i], '{"qr":' || v_id || '}');
        end if;
    end loop;
end
$$;
