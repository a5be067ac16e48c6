-- next_work_at: seconds until the next work of these topics becomes visible, or null if there is none.
create or replace function mesh.next_work_at(p_app text, p_topics text[]) returns double precision
language sql stable as $$
    select extract(epoch from min(n.visible_at) - mesh.clock())::double precision
      from unnest(p_topics) as t(topic)
     cross join lateral (
        select w.visible_at from mesh.worker_stream as w
         where w.app_id = p_app and w.topic = t.topic
         order by w.visible_at limit 1) as n
$$;
