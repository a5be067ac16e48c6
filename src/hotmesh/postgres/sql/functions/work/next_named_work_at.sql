-- next_named_work_at: next_work_at for topics whose workers take work by its workflow name, as in claim_named_work.
create or replace function mesh.next_named_work_at(p_app text, p_topics text[], p_names text[], p_others text[])
returns double precision language sql stable as $$
    select extract(epoch from min(n.visible_at) - mesh.clock())::double precision
      from unnest(p_topics, p_names, p_others) as t(topic, name, others)
     cross join lateral (
        -- Whether there is a name is asked inside of each part, so that the other part is not even begun.
        (select w.visible_at from mesh.worker_stream as w
          where t.name is not null and w.app_id = p_app and w.topic = t.topic and w.workflow_name = t.name
          order by w.visible_at limit 1)
         union all
        (select w.visible_at from mesh.worker_stream as w
          where t.name is null and w.app_id = p_app and w.topic = t.topic
            and w.workflow_name <> all (t.others::text[])
          order by w.visible_at limit 1)) as n
$$;
