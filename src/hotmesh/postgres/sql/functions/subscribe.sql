-- subscribe: this process wants the results announced under these topics, for p_lease seconds from now.
create or replace function mesh.subscribe(p_app text, p_member text, p_topics text[], p_lease double precision)
returns void language sql as $$
    insert into mesh.subscription (app_id, topic, member, expires_at)
    select p_app, t.topic, p_member, mesh.clock() + p_lease * interval '1 second'
      from unnest(p_topics) as t(topic)
     order by t.topic
    on conflict on constraint subscription_pk do update set expires_at = excluded.expires_at
$$;
