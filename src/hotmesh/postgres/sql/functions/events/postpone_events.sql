-- postpone_events: handling a job's due events has failed; try again later, unless that was the last of p_limit tries.
-- Runs in a transaction of its own, after the failed one was rolled back; after the last try, the same one buries the job.
-- Locks    the job row first: an engine that is handling the same events meanwhile is through with them then.
-- Writes   visible_at / due_at = now + p_delay and attempt + 1; nothing after the last try.
-- Returns  later | last | gone
create or replace function mesh.postpone_events(
    p_app text, p_generation uuid, p_delay double precision, p_limit integer
) returns text language plpgsql set enable_seqscan = off as $$
declare
    v_attempt integer;
    v_now     constant timestamptz := mesh.clock();
begin
    perform
      from (select s.job_id from mesh.engine_stream as s where s.generation = p_generation
            union select t.job_id from mesh.timer as t where t.generation = p_generation limit 1) as d
      join mesh.job as j on j.app_id = p_app and j.job_id = d.job_id and j.generation = p_generation
       for update of j;
    if not found then
        return 'gone';
    end if;
    select max(d.attempt) into v_attempt
      from (select s.attempt from mesh.engine_stream as s where s.generation = p_generation and (s.visible_at <= v_now) is true
            union all
            select t.attempt from mesh.timer as t where t.generation = p_generation and (t.due_at <= v_now) is true) as d;
    if v_attempt is null then
        return 'gone';
    end if;
    if v_attempt + 1 >= p_limit then
        return 'last';
    end if;
    update mesh.engine_stream set attempt = attempt + 1, visible_at = v_now + p_delay * interval '1 second'
     where generation = p_generation and (visible_at <= v_now) is true;
    update mesh.timer set attempt = attempt + 1, due_at = v_now + p_delay * interval '1 second'
     where generation = p_generation and (due_at <= v_now) is true;
    return 'later';
end
$$;
