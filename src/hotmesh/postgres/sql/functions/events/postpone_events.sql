-- postpone_events: handling a job's due events has failed; try again later, or give up after p_limit tries.
-- Runs in a transaction of its own, after the failed one was rolled back.
-- Locks    the job row first: an engine that is handling the same events meanwhile is through with them then.
-- Writes   visible_at / due_at = now + p_delay and attempt + 1. Past the limit: one dead letter with everything that
--          was open of the job, so that requeue_dead_letter can bring it back whole; the job ends with an error, and a
--          parent that awaits it is told. Nothing loops, and nothing is dropped silently.
-- Returns  later | buried | gone
create or replace function mesh.postpone_events(
    p_app text, p_generation uuid, p_delay double precision, p_reason text, p_limit integer
) returns text language plpgsql set enable_seqscan = off as $$
declare
    v_job     mesh.job;
    v_first   record;
    v_attempt integer;
    v_error   json;
    v_now     constant timestamptz := mesh.clock();
begin
    select j.* into v_job
      from (select s.job_id from mesh.engine_stream as s where s.generation = p_generation
            union select t.job_id from mesh.timer as t where t.generation = p_generation limit 1) as d
      join mesh.job as j on j.app_id = p_app and j.job_id = d.job_id and j.generation = p_generation
       for update of j;
    if not found then
        return 'gone';
    end if;
    select max(d.attempt) into v_attempt
      from (select s.attempt from mesh.engine_stream as s where s.generation = p_generation and s.visible_at <= v_now
            union all
            select t.attempt from mesh.timer as t where t.generation = p_generation and t.due_at <= v_now) as d;
    if v_attempt is null then
        return 'gone';
    end if;
    if v_attempt + 1 < p_limit then
        update mesh.engine_stream set attempt = attempt + 1, visible_at = v_now + p_delay * interval '1 second'
         where generation = p_generation and visible_at <= v_now;
        update mesh.timer set attempt = attempt + 1, due_at = v_now + p_delay * interval '1 second'
         where generation = p_generation and due_at <= v_now;
        return 'later';
    end if;

    select d.* into v_first
      from (select s.kind, s.activity_id, s.dimension, s.visible_at as due_at from mesh.engine_stream as s
             where s.generation = p_generation and s.visible_at <= v_now
            union all
            select 'timer', t.activity_id, t.dimension, t.due_at from mesh.timer as t
             where t.generation = p_generation and t.due_at <= v_now) as d
     order by d.due_at limit 1;
    insert into mesh.dead_letter (
        app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, dead_at)
    values (p_app, 'engine', v_first.kind, v_job.job_id, p_generation, v_first.activity_id, v_first.dimension,
            json_build_object(
                'messages', (select coalesce(json_agg(s order by s.visible_at, s.message_id), '[]')
                               from mesh.engine_stream as s where s.generation = p_generation),
                'timers', (select coalesce(json_agg(t order by t.due_at), '[]')
                             from mesh.timer as t where t.generation = p_generation),
                'waits', (select coalesce(json_agg(w order by w.created_at), '[]')
                            from mesh.wait as w where w.generation = p_generation),
                'work', (select coalesce(json_agg(w order by w.created_at), '[]')
                           from mesh.worker_stream as w where w.generation = p_generation),
                'error', v_job.error),
            p_reason, v_now);
    -- What a worker login may add to stays: it goes on when the job is brought back.
    perform mesh.drop_open(array[p_generation], false);
    if v_job.status <= 0 then
        return 'buried';
    end if;
    v_error := json_build_object('message', p_reason, 'code', 598, 'is_stream_error', true);
    update mesh.job as j
       set status = j.status - 1000000000, seq = j.seq + 1, updated_at = v_now, ended_at = v_now, error = v_error
     where j.app_id = p_app and j.job_id = v_job.job_id and j.generation = p_generation;
    update mesh.escalation as e set status = 'cancelled', updated_at = v_now
     where e.app_id = p_app and e.workflow_id = v_job.job_id and e.status = 'pending';
    if v_job.parent_generation is not null and not v_job.severed then
        insert into mesh.engine_stream (
            app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, visible_at,
            created_at)
        select p.app_id, p.job_id, p.generation, 'result:' || p_generation, 'result', v_job.parent_activity,
               v_job.parent_dimension, 'error', 598, v_error, v_now, v_now
          from mesh.job as p
         where p.app_id = p_app and p.job_id = v_job.parent_job_id and p.generation = v_job.parent_generation
           and p.status > 0
        on conflict on constraint engine_stream_pk do nothing;
    end if;
    return 'buried';
end
$$;
