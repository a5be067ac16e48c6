-- prune_subscriptions: delete up to p_limit subscriptions that nobody has renewed in time.  Returns  how many there were.
create or replace function mesh.prune_subscriptions(p_app text, p_limit integer) returns integer language sql as $$
    with old as (
        select s.app_id, s.topic, s.member, s.by_pattern from mesh.subscription as s
         where s.app_id = p_app and s.expires_at <= mesh.clock()
         limit p_limit
           for update skip locked
    ), gone as (
        delete from mesh.subscription as s using old as o
         where s.app_id = o.app_id and s.topic = o.topic and s.member = o.member and s.by_pattern = o.by_pattern
        returning 1
    )
    select count(*)::integer from gone
$$;
