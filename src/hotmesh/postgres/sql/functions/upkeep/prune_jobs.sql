-- prune_jobs: delete up to p_limit jobs that expired more than p_keep seconds ago, with all that belongs to them.
-- p_entities null: of any entity; else only of these. p_transient: only those without an entity.
-- What is kept is not read: job_expiry knows which parts of the table may have jobs whose time is over. No other index can be used for
-- that: app_id is no condition for one here.
-- Locks    job rows, skipping those somebody is working on; a job that has not ended is never touched.
-- Returns  how many there were; fewer than p_limit: no more for now.
create or replace function mesh.prune_jobs(
    p_app text, p_keep double precision, p_entities text[], p_transient boolean, p_limit integer
) returns integer language plpgsql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_before constant timestamptz := mesh.clock() - p_keep * interval '1 second';
    v_gone   uuid[];
begin
    with old as materialized (
        select j.ctid as place from mesh.job as j
         where (j.app_id = p_app) is true
           and (j.created_at at time zone 'UTC') + (case when j.expire > 0 then least(j.expire, 1e9) else 1e9 end) * interval '1 second' <= v_before at time zone 'UTC'
           and j.expires_at <= v_before and j.status <= 0
           and (p_entities is null or j.entity = any (p_entities))
           and (not p_transient or j.entity is null)
         limit p_limit
           for update skip locked
    ), gone as (
        delete from mesh.job as j using old as o where j.ctid = o.place
        returning j.generation
    )
    select coalesce(array_agg(g.generation), '{}') into v_gone from gone as g;
    perform mesh.forget_generations(v_gone);
    return cardinality(v_gone);
end
$$;
