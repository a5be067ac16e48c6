-- next_work_at: seconds until the next work of these topics becomes visible, or null if there is none within p_within seconds; null: ever.
-- p_names, p_others, p_since: as in claim_work.
create or replace function mesh.next_work_at(
    p_app text, p_topics text[], p_names text[] default null, p_others text[] default null,
    p_since timestamptz[] default null, p_within double precision default null
) returns double precision language plpgsql stable
  set plan_cache_mode = force_generic_plan
  -- Where the planner believes that few rows have another name, it would read the whole table.
  set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_until constant timestamptz := coalesce(mesh.clock() + p_within * interval '1 second', 'infinity');
begin
    return (
        select extract(epoch from min(n.visible_at) - mesh.clock())::double precision
          from unnest(p_topics, p_names, p_others, p_since) as t(topic, name, others, since)
         cross join lateral (
            -- The parts of claim_work.
            (select w.visible_at from mesh.worker_stream as w
              where coalesce(w.reserved_by, '') <> '' and w.app_id = p_app and w.topic = t.topic
                and w.visible_at >= coalesce(t.since, '-infinity') and w.visible_at <= v_until
                and (t.name is null or w.workflow_name = t.name)
                and (t.name is not null or t.others is null or w.workflow_name <> all (t.others::text[]))
              order by w.visible_at limit 1)
             union all
            (select w.visible_at from mesh.worker_stream as w
              where t.name is null and coalesce(w.reserved_by, '') = '' and w.app_id = p_app and w.topic = t.topic
                and w.visible_at >= coalesce(t.since, '-infinity') and w.visible_at <= v_until
                and (t.others is null or w.workflow_name <> all (t.others::text[]))
              order by w.visible_at limit 1)
             union all
            (select w.visible_at from mesh.worker_stream as w
              where t.name is not null and length(coalesce(w.reserved_by, '')) = 0 and w.app_id = p_app and w.topic = t.topic
                and w.workflow_name = t.name
                and w.visible_at >= coalesce(t.since, '-infinity') and w.visible_at <= v_until
              order by w.visible_at limit 1)) as n);
end
$$;
