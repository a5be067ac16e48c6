-- count_due: engines die one after the other; note, before it is handled, that what is due of up to p_limit jobs is taken.
-- Runs in a transaction of its own, whose count stays if the engine dies in the next one.
-- p_last: how often it may be taken. The job whose events were taken one time less, or more often, is taken alone: the one that is due first.
-- Locks    as lock_due_jobs.
-- Writes   delivery + 1 of the messages and timers that are due.
-- Returns  the jobs, and how often their events have been taken now.
create or replace function mesh.count_due(p_app text, p_limit integer, p_last integer)
returns table (job_id text, generation uuid, times integer) language plpgsql set enable_seqscan = off as $$
declare
    v_now   constant timestamptz := mesh.clock();
    v_found uuid[];
    v_alone uuid;
begin
    select array_agg((d.job).generation) into v_found from mesh.lock_due_jobs(p_app, p_limit) as d where d.events is not null;
    if v_found is null then
        return;
    end if;
    select d.generation into v_alone
      from (select s.generation, s.delivery, s.visible_at as due_at from mesh.engine_stream as s
             where s.generation = any (v_found) and s.visible_at <= v_now
            union all
            select t.generation, t.delivery, t.due_at from mesh.timer as t
             where t.generation = any (v_found) and t.due_at <= v_now) as d
     where d.delivery >= p_last - 1
     order by d.due_at limit 1;
    if v_alone is not null then
        v_found := array[v_alone];
    end if;
    return query
    with message as (
        update mesh.engine_stream as s set delivery = s.delivery + 1
         where s.generation = any (v_found) and s.visible_at <= v_now
        returning s.job_id, s.generation, s.delivery
    ), sleeper as (
        update mesh.timer as t set delivery = t.delivery + 1
         where t.generation = any (v_found) and t.due_at <= v_now
        returning t.job_id, t.generation, t.delivery
    )
    select d.job_id, d.generation, max(d.delivery)
      from (select * from message union all select * from sleeper) as d
     group by d.job_id, d.generation;
end
$$;
