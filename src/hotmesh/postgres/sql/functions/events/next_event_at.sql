-- next_event_at: seconds until the next message or timer of the app is due, or null if there is none within p_within seconds; null: ever.
-- p_since: as in lock_due_jobs.
create or replace function mesh.next_event_at(
    p_app text, p_since timestamptz default null, p_within double precision default null
) returns double precision language plpgsql stable
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_since constant timestamptz := coalesce(p_since, '-infinity');
    v_until constant timestamptz := coalesce(mesh.clock() + p_within * interval '1 second', 'infinity');
begin
    return extract(epoch from least(
        (select s.visible_at from mesh.engine_stream as s
          where s.app_id = p_app and s.visible_at >= v_since and s.visible_at <= v_until order by s.visible_at limit 1),
        (select t.due_at from mesh.timer as t
          where t.app_id = p_app and t.due_at >= v_since and t.due_at <= v_until order by t.due_at limit 1)
    ) - mesh.clock())::double precision;
end
$$;
