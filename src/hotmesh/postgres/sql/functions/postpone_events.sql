-- postpone_events: handling a job's due events has failed; try again later, or give up after p_limit tries.
-- Runs in a transaction of its own, after the failed one was rolled back.
-- Locks    the job row.
-- Writes   visible_at / due_at = now + p_delay and attempt + 1; past the limit moves the messages to the dead letters
--          and ends the job with an error, so that nothing loops and nothing is dropped silently.
-- Returns  later | buried | gone
create or replace function mesh.postpone_events(
    p_app text, p_generation uuid, p_delay double precision, p_reason text, p_limit integer
) returns text language plpgsql set enable_seqscan = off as $$
declare
    v_job     mesh.job;
    v_attempt integer;
    v_now     constant timestamptz := mesh.clock();
begin
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
    insert into mesh.dead_letter (
        app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, dead_at)
    select s.app_id, 'engine', s.kind, s.job_id, s.generation, s.activity_id, s.dimension, row_to_json(s), p_reason, v_now
      from mesh.engine_stream as s where s.generation = p_generation and s.visible_at <= v_now;
    insert into mesh.dead_letter (
        app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, dead_at)
    select t.app_id, 'engine', 'timer', t.job_id, t.generation, t.activity_id, t.dimension, row_to_json(t), p_reason, v_now
      from mesh.timer as t where t.generation = p_generation and t.due_at <= v_now;
    delete from mesh.engine_stream where generation = p_generation;
    delete from mesh.worker_stream where generation = p_generation;
    delete from mesh.timer where generation = p_generation;
    delete from mesh.wait where generation = p_generation;
    update mesh.job as j
       set status = j.status - 1000000000, seq = j.seq + 1, updated_at = v_now, ended_at = v_now,
           error = json_build_object('message', p_reason, 'code', 598, 'is_stream_error', true)
     where j.generation = p_generation and j.app_id = p_app and j.status > 0
       and j.job_id in (select d.job_id from mesh.dead_letter as d where d.generation = p_generation);
    return 'buried';
end
$$;
