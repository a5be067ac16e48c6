-- subscribe: this process wants the results announced under these topics (by pattern or not), for p_lease seconds from
-- now. Removes what processes that are gone have left.
create or replace function mesh.subscribe(
    p_app text, p_member text, p_topics text[], p_patterns boolean[], p_lease double precision
) returns void language sql as $$
    with lapsed as (
        select s.app_id, s.topic, s.member, s.by_pattern from mesh.subscription as s
         where s.expires_at < mesh.clock() - p_lease * interval '1 second'
           and (s.app_id <> p_app or s.member <> p_member)
           for update skip locked
    ), removed as (
        delete from mesh.subscription as s using lapsed as l
         where s.app_id = l.app_id and s.topic = l.topic and s.member = l.member and s.by_pattern = l.by_pattern
    )
    insert into mesh.subscription (app_id, topic, member, by_pattern, expires_at)
    select p_app, t.topic, p_member, t.by_pattern, mesh.clock() + p_lease * interval '1 second'
      from unnest(p_topics, p_patterns) as t(topic, by_pattern)
     order by t.topic, t.by_pattern
    on conflict on constraint subscription_pk do update set expires_at = excluded.expires_at
$$;
