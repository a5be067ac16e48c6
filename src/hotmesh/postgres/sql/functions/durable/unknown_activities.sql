-- unknown_activities: what waits on topics of activities under names that no live member has; and what p_member has itself.
-- p_known: {topic: [name, …]} of p_member, which serves p_topics.
-- Writes   activities of its member.
-- Returns  each topic and name that nobody has, and for how many seconds the oldest has waited.
-- Reads    one row for each name that waits, by worker_stream_named; not the queue.
create or replace function mesh.unknown_activities(p_app text, p_member text, p_known text, p_topics text[])
returns table (topic text, name text, seconds double precision) language plpgsql
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
    update mesh.member as m set activities = p_known::json
     where m.app_id = p_app and m.guid = p_member and m.activities::text is distinct from p_known;
    return query
    with recursive found as (
        select t.topic, (
                select w.workflow_name from mesh.worker_stream as w
                 where length(coalesce(w.reserved_by, '')) = 0 and w.app_id = p_app and w.topic = t.topic
                 order by w.workflow_name limit 1) as name
          from unnest(p_topics) as t(topic)
         union all
        select f.topic, (
                select w.workflow_name from mesh.worker_stream as w
                 where length(coalesce(w.reserved_by, '')) = 0 and w.app_id = p_app and w.topic = f.topic
                   and w.workflow_name > f.name
                 order by w.workflow_name limit 1)
          from found as f where f.name is not null
    ), known as materialized (
        select k.key as topic, e.value as name
          from mesh.member as m
         cross join lateral json_each(m.activities) as k
         cross join lateral json_array_elements_text(k.value) as e
         where m.app_id = p_app and m.activities is not null
    )
    select f.topic, f.name, (
            select extract(epoch from mesh.clock() - w.visible_at)::double precision from mesh.worker_stream as w
             where length(coalesce(w.reserved_by, '')) = 0 and w.app_id = p_app and w.topic = f.topic
               and w.workflow_name = f.name and w.visible_at <= mesh.clock()
             order by w.visible_at limit 1)
      from found as f
     where f.name is not null and not exists (select from known as k where k.topic = f.topic and k.name = f.name)
       -- Somebody runs one of that name, whatever its row among the members says.
       and not exists (select from mesh.worker_stream as h
                        where coalesce(h.reserved_by, '') <> '' and h.app_id = p_app and h.topic = f.topic
                          and h.workflow_name = f.name and h.reserved_by <> '(token)');
end
$$;
