-- send_message: put a message for a live job on the engine stream, once per message id, and wake the engines.
-- Reads    for 'added': the activity must be waiting (its work is queued, it is open or pending, or its pending answer is on
--          its way: this one comes after it then).
-- Locks    for 'interrupt': the job, so that no step ends it between the look at it and the message.
-- Returns  sent | duplicate | missing (no live job of that id and generation) | closed (the activity waits no more; for
--          'interrupt': the job has ended)
create or replace function mesh.send_message(
    p_app text, p_job_id text, p_generation uuid, p_message text, p_kind text, p_activity text, p_dimension text,
    p_status text, p_code integer, p_data text, p_wake text
) returns text language plpgsql as $$
declare
    v_job mesh.job;
    v_at  timestamptz := mesh.clock();
begin
    if p_kind = 'interrupt' then
        perform from mesh.job as j where j.app_id = p_app and j.job_id = p_job_id for share;
    end if;
    select * into v_job from mesh.job as j
     where j.app_id = p_app and j.job_id = p_job_id
       and (j.expires_at is null or j.expires_at > mesh.clock())
       and (p_generation is null or j.generation = p_generation);
    if not found then
        return 'missing';
    end if;
    if p_kind in ('added', 'interrupt') and v_job.status <= 0 then
        return 'closed';
    end if;
    if p_kind = 'added' then
        select greatest(v_at, s.visible_at + interval '1 microsecond') into v_at
          from mesh.engine_stream as s
         where s.generation = v_job.generation and s.status = 'pending'
           and s.message_id = 'answer:' || p_activity || ':' || p_dimension::integer[]::text;
        if not found then
            v_at := mesh.clock();
            if not exists (select from mesh.worker_stream as s
                            where s.generation = v_job.generation and s.activity_id = p_activity
                              and s.dimension = p_dimension::integer[])
               and not exists (select from mesh.activity as a
                                where a.generation = v_job.generation and a.activity_id = p_activity
                                  and a.dimension = p_dimension::integer[] and a.state in ('open', 'pending'))
            then
                return 'closed';
            end if;
        end if;
    end if;
    insert into mesh.engine_stream (
        app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, visible_at, created_at)
    values (p_app, p_job_id, v_job.generation, p_message, p_kind, p_activity, p_dimension::integer[], p_status, p_code,
            p_data::json, v_at, mesh.clock())
    on conflict on constraint engine_stream_pk do nothing;
    if not found then
        return 'duplicate';
    end if;
    perform mesh.wake(p_app, p_wake);
    return 'sent';
end
$$;
