-- requeue_dead_letter: put what was given up back where it came from, and bring back the job that ended by it.
-- Four kinds of dead letter:
--   a turn      of a durable function, whose processes died of it: queued again for its hosts, and counted from the beginning.
--   work        its activity was answered with the error. The answer is still queued: it is withdrawn. It has been
--               handled, and no transition took it: p_reopen, the activity is opened again, and the job with it.
--   a job       that an engine could not go on with: its status, its former error and all that was open are restored.
--   a broadcast (no job): it is queued again.
-- p_seq    the job as it was when the caller decided on p_reopen, p_error (the error that the job has from now on) and
--          p_open; a job that has moved since is not touched.
-- Locks    the job row, then the dead letter; of several callers exactly one succeeds.
-- Returns  requeued
--          missing   there is no such dead letter (any more)
--          changed   the job is no longer at p_seq
--          ended     the job is over, for another reason; or it is gone
--          closed    the activity takes no answer any more
create or replace function mesh.requeue_dead_letter(
    p_app text, p_id bigint, p_seq bigint, p_reopen boolean, p_error text, p_open text, p_wake text
) returns text language plpgsql set enable_seqscan = off as $$
declare
    v_letter  mesh.dead_letter;
    v_job     mesh.job;
    v_message json;
    v_now     constant timestamptz := mesh.clock();
begin
    select * into v_letter from mesh.dead_letter as d where d.id = p_id and d.app_id = p_app;
    if not found then
        return 'missing';
    end if;
    if v_letter.job_id <> '' then
        -- Before the letter: whoever removes a job locks the job first.
        select * into v_job from mesh.job as j
         where j.app_id = p_app and j.job_id = v_letter.job_id and j.generation = v_letter.generation
           for update;
        if not found then
            return 'ended';
        end if;
        if v_job.seq <> p_seq then
            return 'changed';
        end if;
    end if;
    perform from mesh.dead_letter as d where d.id = p_id for update;
    if not found then
        return 'missing';
    end if;
    v_message := mesh.hide_nul(v_letter.message);

    if v_letter.job_id = '' then
        insert into mesh.broadcast (app_id, topic, facet, query, data, created_at)
        select p_app, b.topic, b.facet, mesh.show_nul(b.query), mesh.show_nul(b.data), v_now
          from json_populate_record(null::mesh.broadcast, v_message) as b;

    elsif v_letter.stream = 'worker' and v_letter.activity_id = '' and v_job.queue is not null then
        if v_job.status <= 0 or v_job.expires_at <= v_now then
            return 'ended';
        end if;
        delete from mesh.engine_stream as s
         where s.generation = v_letter.generation and s.kind = 'answer'
           and s.message_id = 'answer::' || v_letter.dimension::text;
        update mesh.job as j set recoveries = 0, updated_at = v_now where j.app_id = p_app and j.job_id = v_job.job_id;
        insert into mesh.worker_stream (
            app_id, topic, generation, activity_id, dimension, job_id, data, workflow_name, visible_at, created_at)
        values (p_app, v_job.queue, v_job.generation, '', v_letter.dimension, v_job.job_id, '{}', v_job.topic, v_now, v_now)
        on conflict on constraint worker_stream_pk do nothing;

    elsif v_letter.stream = 'worker' then
        delete from mesh.engine_stream as s
         where s.generation = v_letter.generation and s.kind = 'answer'
           and s.message_id = 'answer:' || v_letter.activity_id || ':' || v_letter.dimension::text;
        if not found then
            if not p_reopen then
                return case when v_job.status = 0 or v_job.status < -1 then 'ended' else 'closed' end;
            end if;
            update mesh.job as j
               set status = j.status + 1, seq = j.seq + 1, error = p_error::json, open = p_open::json,
                   updated_at = v_now, ended_at = null, expires_at = null
             where j.app_id = p_app and j.job_id = v_job.job_id;
            update mesh.activity as a
               set state = 'open', error = null, code = null, ended_at = null
             where a.generation = v_letter.generation and a.activity_id = v_letter.activity_id
               and a.dimension = v_letter.dimension;
        end if;
        insert into mesh.worker_stream (
            app_id, topic, generation, activity_id, dimension, job_id, data, workflow_name, retry, retry_policy,
            trace_id, span_id, visible_at, created_at)
        select w.app_id, w.topic, w.generation, w.activity_id, w.dimension, w.job_id, mesh.show_nul(w.data),
               w.workflow_name, w.retry, w.retry_policy, w.trace_id, w.span_id, v_now, v_now
          from json_populate_record(null::mesh.worker_stream, v_message) as w;

    else
        if v_job.status < -1 and v_job.seq = (v_message ->> 'seq')::bigint then
            update mesh.job as j
               set status = j.status + 1000000000, seq = j.seq + 1, updated_at = v_now, ended_at = null,
                   expires_at = null, error = mesh.show_nul(nullif((v_message -> 'error')::text, 'null')::json)
             where j.app_id = p_app and j.job_id = v_job.job_id;
            update mesh.escalation as e set status = 'pending', updated_at = v_now
             where e.app_id = p_app and e.workflow_id = v_job.job_id and e.status = 'cancelled'
               and e.updated_at = v_job.ended_at
               and not exists (select from mesh.escalation as o
                                where o.namespace = e.namespace and o.app_id = e.app_id and o.signal_key = e.signal_key
                                  and o.status = 'pending');
        elsif v_job.status = 0 or v_job.status < -1 or v_job.expires_at <= v_now then
            return 'ended';
        end if;
        insert into mesh.engine_stream (
            app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, started_at,
            work_attempt, visible_at, created_at)
        select s.app_id, s.job_id, s.generation, s.message_id, s.kind, s.activity_id, s.dimension, s.status, s.code,
               mesh.show_nul(s.data), s.started_at, s.work_attempt, s.visible_at, s.created_at
          from json_populate_recordset(null::mesh.engine_stream, v_message -> 'messages') as s
        on conflict on constraint engine_stream_pk do nothing;
        insert into mesh.timer (app_id, job_id, generation, activity_id, dimension, due_at, set_at)
        select t.app_id, t.job_id, t.generation, t.activity_id, t.dimension, t.due_at, t.set_at
          from json_populate_recordset(null::mesh.timer, v_message -> 'timers') as t;
        insert into mesh.worker_stream (
            app_id, topic, generation, activity_id, dimension, job_id, data, workflow_name, retry, retry_policy,
            trace_id, span_id, attempt, visible_at, created_at)
        select w.app_id, w.topic, w.generation, w.activity_id, w.dimension, w.job_id, mesh.show_nul(w.data),
               w.workflow_name, w.retry, w.retry_policy, w.trace_id, w.span_id, w.attempt,
               case when w.reserved_by is null then w.visible_at else v_now end, w.created_at
          from json_populate_recordset(null::mesh.worker_stream, v_message -> 'work') as w;
        insert into mesh.worker_pending
        select p.* from json_populate_recordset(null::mesh.worker_pending, v_message -> 'pending') as p
        on conflict on constraint worker_pending_pk do nothing;
        perform mesh.wait_again(p_app, v_message -> 'waits');
    end if;
    delete from mesh.dead_letter as d where d.id = p_id;
    perform mesh.wake(p_app, p_wake);
    return 'requeued';
end
$$;
