-- bury_events: keep everything that is open of a job as one dead letter, from which requeue_dead_letter brings it back whole.
-- Called in the transaction that then commits the step by which the job ends (core: bury), and deletes what is open.
-- Locks    nothing more: postpone_events has locked the job.
-- Writes   mesh.dead_letter; it names the first event that was due, and the version of the job that the step will leave.
-- Returns  whether there was such a job.
create or replace function mesh.bury_events(p_app text, p_job_id text, p_generation uuid, p_reason text) returns boolean
language plpgsql set enable_seqscan = off as $$
declare
    v_now constant timestamptz := mesh.clock();
begin
    insert into mesh.dead_letter (
        app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, dead_at)
    select p_app, 'engine', coalesce(f.kind, ''), j.job_id, j.generation, coalesce(f.activity_id, ''),
           coalesce(f.dimension, '{}'),
           json_build_object(
               'messages', (select coalesce(json_agg(s order by s.visible_at, s.message_id), '[]')
                              from mesh.engine_stream as s where s.generation = p_generation),
               'timers', (select coalesce(json_agg(t order by t.due_at), '[]')
                            from mesh.timer as t where t.generation = p_generation),
               'waits', (select coalesce(json_agg(w order by w.created_at), '[]')
                           from mesh.wait as w where w.generation = p_generation),
               'work', (select coalesce(json_agg(w order by w.created_at), '[]')
                          from mesh.worker_stream as w where w.generation = p_generation),
               'pending', (select coalesce(json_agg(w order by w.created_at), '[]')
                             from mesh.worker_pending as w where w.generation = p_generation),
               'error', j.error, 'seq', j.seq + 1),
           p_reason, v_now
      from mesh.job as j
      left join lateral (
        select d.* from (
            select s.kind, s.activity_id, s.dimension, s.visible_at as due_at from mesh.engine_stream as s
             where s.generation = p_generation and (s.visible_at <= v_now) is true
            union all
            select 'timer', t.activity_id, t.dimension, t.due_at from mesh.timer as t
             where t.generation = p_generation and (t.due_at <= v_now) is true) as d
         order by d.due_at limit 1) as f on true
     where j.app_id = p_app and j.job_id = p_job_id and j.generation = p_generation;
    return found;
end
$$;
