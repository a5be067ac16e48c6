-- delay_events: leave a job's due events alone for p_delay seconds, because nothing is wrong with them: another process
-- may be able to handle them, or what is in their way goes by itself. Unlike postpone_events, this counts no failure.
-- Runs in a transaction of its own, after the failed one was rolled back.
-- Locks    the job row first, as everybody does who changes its events.
create or replace function mesh.delay_events(p_app text, p_generation uuid, p_delay double precision) returns void
language plpgsql set enable_seqscan = off as $$
declare
    v_now constant timestamptz := mesh.clock();
begin
    perform from mesh.job as j
     where j.app_id = p_app
       and j.job_id in (select s.job_id from mesh.engine_stream as s where s.generation = p_generation
                        union select t.job_id from mesh.timer as t where t.generation = p_generation)
       and j.generation = p_generation
       for update;
    update mesh.engine_stream set visible_at = v_now + p_delay * interval '1 second'
     where generation = p_generation and (visible_at <= v_now) is true;
    update mesh.timer set due_at = v_now + p_delay * interval '1 second'
     where generation = p_generation and (due_at <= v_now) is true;
end
$$;
