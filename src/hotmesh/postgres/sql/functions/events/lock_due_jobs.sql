-- lock_due_jobs: lock up to p_limit jobs that have messages or due timers, with all of these; only of p_only, if that is given.
-- p_since: only what became due then or later; null: all. See claim_work.
-- Runs in the transaction that will commit their steps; a process that dies lets go of them at once.
-- Locks    job rows, skipping those another engine is working on; for 5 seconds of standing still at most.
-- Writes   removes messages and timers whose job is gone.
-- Returns  the job rows, each with the moment since when it is due and its events as a JSON array in the order in which they became due, at most 500 of
--          them: what a parent hears from thousands of children is more than one step should handle.
create or replace function mesh.lock_due_jobs(
    p_app text, p_limit integer, p_only uuid[] default null, p_since timestamptz default null
) returns table (job mesh.job, events json, due_at timestamptz) language plpgsql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_now         constant timestamptz := mesh.clock();
    v_since       constant timestamptz := coalesce(p_since, '-infinity');
    v_job_ids     text[];
    v_generations uuid[];
begin
    with message as materialized (
        select s.job_id, s.generation, s.visible_at as due_at from mesh.engine_stream as s
         where s.app_id = p_app and s.visible_at <= v_now and s.visible_at >= v_since
           and (p_only is null or s.generation = any (p_only))
         order by s.visible_at limit p_limit * 4
    ), sleeper as materialized (
        select t.job_id, t.generation, t.due_at from mesh.timer as t
         where t.app_id = p_app and t.due_at <= v_now and t.due_at >= v_since
           and (p_only is null or t.generation = any (p_only))
         order by t.due_at limit p_limit * 4
    ), due as materialized (
        select d.job_id, d.generation, min(d.due_at) as due_at
          from (select * from message union all select * from sleeper) as d
         group by d.job_id, d.generation
         order by min(d.due_at) limit p_limit
    ), orphan as (
        select d.generation from due as d
         where (select j.generation from mesh.job as j
                 where j.app_id = p_app and j.job_id = d.job_id) is distinct from d.generation
    ), no_message as (
        delete from mesh.engine_stream as s using orphan as o where s.generation = any (array[o.generation])
    ), no_timer as (
        delete from mesh.timer as t using orphan as o where t.generation = any (array[o.generation])
    ), locked as materialized (
        select d.job_id, d.generation from (select * from due order by job_id) as d
         cross join lateral (
            select from mesh.job as j
             where j.app_id = p_app and j.job_id = d.job_id and j.generation = d.generation
               for update skip locked) as j
    )
    select array_agg(l.job_id), array_agg(l.generation) into v_job_ids, v_generations from locked as l;
    if v_job_ids is null then
        return;
    end if;
    -- A process that stands still in the middle of its transaction must not keep the jobs: the server ends its session.
    perform set_config('idle_in_transaction_session_timeout', '5000', true);
    -- A statement of its own, which sees what was committed until the locks were taken: an event that another engine
    -- consumed just now must not be handed out with the job as that engine left it.
    return query
    select j, d.events, d.due_at
      from mesh.job as j
     cross join lateral (
        select json_agg(e.event order by e.due_at, e.message_id) as events, min(e.due_at) as due_at
          from (select s.visible_at as due_at, s.message_id,
                       json_build_object(
                           'kind', s.kind, 'message_id', s.message_id, 'activity_id', s.activity_id,
                           'dimension', s.dimension, 'status', s.status, 'code', s.code, 'data', s.data,
                           'attempt', s.attempt, 'work_attempt', s.work_attempt, 'at', coalesce(s.started_at, s.created_at)) as event
                  from mesh.engine_stream as s
                 where s.generation = j.generation and (s.visible_at <= v_now) is true
                 union all
                select t.due_at, '', json_build_object(
                           'kind', 'timer', 'message_id', '', 'activity_id', t.activity_id, 'dimension', t.dimension,
                           'status', 'success', 'code', 200, 'data', null, 'attempt', t.attempt, 'at', t.set_at)
                  from mesh.timer as t
                 where t.generation = j.generation and (t.due_at <= v_now) is true
                 order by 1, 2 limit 500) as e) as d
     where j.app_id = p_app and j.job_id = any (v_job_ids) and j.generation = any (v_generations);
end
$$;
