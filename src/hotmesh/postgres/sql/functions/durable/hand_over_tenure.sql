-- hand_over_tenure: let others have the jobs of a process that has died, or did not renew its tenure; some of them.
-- First, by itself: the tenure is lapsed (lapse_tenures, give_back_gone). From then on no commit that names it comes through
-- with held jobs (MS003 of commit_steps, whose look at it is its last statement). Then this, again and again:
--   1. the fence: the number from which on transactions begin after the lapse
--   2. up to p_most jobs: seq + 1 shuts the old holder out, and a turn for each is queued for its hosts. One that was taken
--      too often from processes that died of it gets none: it has a dead letter, and can be brought back.
--   3. when no transaction below the fence is left, and none was found in a look after that, the tenure goes: a commit that
--      still saw it unlapsed is below the fence, and its job has been found
-- Locks    the tenure, skipping one that another process works on; then job rows in id order, skipping those that are held.
-- Writes   mesh.job, mesh.worker_stream, mesh.dead_letter; deletes the tenure in the end.
-- Returns  how many jobs were taken; null: nothing is to be done about this tenure any more, or somebody else does it.
create or replace function mesh.hand_over_tenure(
    p_app text, p_tenure bigint, p_most integer, p_most_recoveries integer
) returns integer language plpgsql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_now    constant timestamptz := mesh.clock();
    v_tenure mesh.tenure;
    v_over   boolean;
    v_count  integer;
    v_topics text[];
begin
    select * into v_tenure from mesh.tenure as t where t.tenure = p_tenure and t.lapsed for update skip locked;
    if not found then
        return null;
    end if;
    if v_tenure.fence is null then
        update mesh.tenure as t set fence = pg_snapshot_xmax(pg_current_snapshot()) where t.tenure = p_tenure
        returning t.fence into v_tenure.fence;
    end if;
    -- Before the look at the jobs, which sees what was committed until then.
    v_over := pg_snapshot_xmin(pg_current_snapshot()) >= v_tenure.fence;
    with due as materialized (
        select d.place
          from (select j.ctid as place, j.job_id from mesh.job as j
                 where j.tenure = p_tenure and j.held and j.status > 0 order by j.job_id limit p_most) as d
    ), locked as materialized (
        select l.place from due as d
         cross join lateral (
            select j.ctid as place from mesh.job as j
             where j.ctid = d.place and j.tenure = p_tenure and j.held for update skip locked) as l
    ), taken as (
        update mesh.job as j
           set seq = j.seq + 1, held = false, recoveries = least(j.recoveries + 1, 30000), updated_at = v_now
          from locked as l
         where j.ctid = l.place
        returning j.app_id, j.job_id, j.generation, j.queue, j.topic, j.recoveries
    ), queued as (
        insert into mesh.worker_stream (
            app_id, topic, generation, activity_id, dimension, job_id, data, workflow_name, visible_at, created_at)
        select t.app_id, t.queue, t.generation, '', '{0}', t.job_id, '{}', t.topic, v_now, v_now from taken as t
         where t.recoveries <= p_most_recoveries
        on conflict on constraint worker_stream_pk do nothing
    ), buried as (
        insert into mesh.dead_letter (
            app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, dead_at)
        select t.app_id, 'worker', t.queue, t.job_id, t.generation, '', '{0}',
               json_build_object('workflow_name', t.topic, 'data', '{}'::json),
               format('%s processes that ran steps of %s have died, one after the other', t.recoveries, t.topic), v_now
          from taken as t
         where t.recoveries > p_most_recoveries
    )
    select count(*), array_agg(distinct t.queue) filter (where t.recoveries <= p_most_recoveries)
      into v_count, v_topics from taken as t;
    if v_topics is not null then
        perform mesh.wake(p_app, json_build_object('w', v_topics)::text);
    end if;
    if v_count = 0 and v_over and not exists (
        select from mesh.job as j where j.tenure = p_tenure and j.held and j.status > 0) then
        delete from mesh.tenure as t where t.tenure = p_tenure;
        return null;
    end if;
    return v_count;
end
$$;
