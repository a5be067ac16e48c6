-- prune_signals: delete up to p_limit early signals whose time is over. Waits are never touched: they live as long
-- as their jobs.  Returns  how many there were.
create or replace function mesh.prune_signals(p_app text, p_limit integer) returns integer language sql as $$
    with old as (
        select s.app_id, s.topic, s.key, s.ordinal from mesh.signal as s
         where s.app_id = p_app and s.expires_at <= mesh.clock()
         limit p_limit
           for update skip locked
    ), gone as (
        delete from mesh.signal as s using old as o
         where s.app_id = o.app_id and s.topic = o.topic and s.key = o.key and s.ordinal = o.ordinal
        returning 1
    )
    select count(*)::integer from gone
$$;
