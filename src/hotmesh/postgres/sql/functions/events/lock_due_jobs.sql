-- lock_due_jobs: lock up to p_limit jobs that have messages or due timers, with all of these; only of p_only, if that is given.
-- p_tenures: what happens to a job that a process holds is for that process, which names its tenures.
-- p_since: only what became due then or later; null: all. See claim_work.
-- Runs in the transaction that will commit their steps; a process that dies lets go of them at once.
-- Locks    job rows in the order in which they are due, skipping those another engine is working on; for 5 seconds of
--          standing still at most. What others hold does not count: the look goes on behind it, in larger and larger windows,
--          until p_limit jobs are locked, nothing is left, or 60 times as many messages and timers were looked at.
-- Writes   removes messages and timers whose job is gone.
-- Returns  the job rows, each with the moment since when it is due and its events as a JSON array in the order in which they became due, at most 500 of
--          them: what a parent hears from thousands of children is more than one step should handle.
create or replace function mesh.lock_due_jobs(
    p_app text, p_limit integer, p_only uuid[] default null, p_since timestamptz default null,
    p_tenures bigint[] default '{}'
) returns table (job mesh.job, events json, due_at timestamptz) language plpgsql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_now         constant timestamptz := mesh.clock();
    v_since       constant timestamptz := coalesce(p_since, '-infinity');
    v_job_ids     text[] := '{}';
    v_generations uuid[] := '{}';
    v_from        timestamptz := v_since;
    v_window      integer := p_limit;
    v_rows        integer := p_limit * 4;
    v_locked      record;
begin
    loop
        with message as materialized (
            select s.job_id, s.generation, s.visible_at as due_at from mesh.engine_stream as s
             where s.app_id = p_app and s.visible_at <= v_now and s.visible_at >= v_from
               and (p_only is null or s.generation = any (p_only))
             order by s.visible_at limit v_rows
        ), sleeper as materialized (
            select t.job_id, t.generation, t.due_at from mesh.timer as t
             where t.app_id = p_app and t.due_at <= v_now and t.due_at >= v_from
               and (p_only is null or t.generation = any (p_only))
             order by t.due_at limit v_rows
        ), due as materialized (
            select d.job_id, d.generation, min(d.due_at) as due_at
              from (select * from message union all select * from sleeper) as d
             group by d.job_id, d.generation
             order by min(d.due_at) limit v_window
        ), orphan as (
            select d.generation from (select * from due limit p_limit) as d
             where (select j.generation from mesh.job as j
                     where j.app_id = p_app and j.job_id = d.job_id) is distinct from d.generation
        ), locked as materialized (
            -- The limit comes after the lock: a job that another engine holds is none of those asked for.
            select d.job_id, d.generation from (select * from due order by due_at) as d
             cross join lateral (
                select from mesh.job as j
                 where j.app_id = p_app and j.job_id = d.job_id and j.generation = d.generation
                   and j.generation <> all (v_generations)
                   and (not j.held or j.tenure = any (p_tenures))
                   for update skip locked) as j
             limit p_limit - cardinality(v_generations)
        )
        select array_agg(l.job_id) as job_ids, array_agg(l.generation) as generations,
               array(select o.generation from orphan as o) as orphans,
               -- Until when nothing was left out, if anything was.
               least((select s.due_at from message as s offset v_rows - 1),
                     (select t.due_at from sleeper as t offset v_rows - 1),
                     (select d.due_at from due as d offset v_window - 1)) as reached
          into v_locked from locked as l;
        v_job_ids := v_job_ids || v_locked.job_ids;
        v_generations := v_generations || v_locked.generations;
        if v_locked.orphans <> '{}' then
            delete from mesh.engine_stream as s
             where s.ctid = any (array(
                select x.ctid from mesh.engine_stream as x where x.generation = any (v_locked.orphans) for update skip locked));
            delete from mesh.timer as t
             where t.ctid = any (array(
                select x.ctid from mesh.timer as x where x.generation = any (v_locked.orphans) for update skip locked));
        end if;
        exit when cardinality(v_generations) >= p_limit or v_locked.reached is null or v_window > p_limit * 30;
        v_from := v_locked.reached;
        v_window := greatest(v_window * 2, v_rows);
        v_rows := v_window;
    end loop;
    if v_generations = '{}' then
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
                           'status', 'success', 'code', 200, 'data', null, 'attempt', t.attempt, 'at', t.set_at,
                           -- Of one that limits an activity: how often that was taken; null: it is gone.
                           'work_attempt', case when j.queue is not null and cardinality(t.dimension) = 3 then (
                              select w.attempt + w.delivery from mesh.worker_stream as w
                               where w.generation = t.generation and w.activity_id = t.activity_id
                                 and w.dimension = t.dimension[1:2]) end)
                  from mesh.timer as t
                 where t.generation = j.generation and (t.due_at <= v_now) is true
                 order by 1, 2 limit 500) as e) as d
     where j.app_id = p_app and j.job_id = any (v_job_ids) and j.generation = any (v_generations);
end
$$;
