-- put_message: put a message for a live job on the engine stream, once per message id; others leave it alone for p_delay seconds.
-- Reads    for 'added': the activity must be waiting (its work is queued, it is open or pending, or its pending answer is on
--          its way: this one comes after it then).
-- 'cancel' and 'pause' are for durable functions.
-- Locks    for 'interrupt', 'cancel' and 'pause': the job, so that no step ends it between the look at it and the message; waits for nobody.
-- Returns  outcome: sent | duplicate (for 'cancel': it was asked to end before) | missing (no live job of that id and generation) | closed (the activity waits no more;
--          for 'interrupt', 'cancel' and 'pause': the job has ended) | busy (for these three: somebody holds the job, so nothing was done).
--          generation: of the job. in_turn: whether nothing that has been sent has to be handled before it.
create or replace function mesh.put_message(
    p_app text, p_job_id text, p_generation uuid, p_message text, p_kind text, p_activity text, p_dimension integer[],
    p_status text, p_code integer, p_data json, p_delay double precision,
    out outcome text, out generation uuid, out in_turn boolean
) language plpgsql as $$
declare
    v_status integer;
    v_open   json;
    v_now    constant timestamptz := mesh.clock();
    v_at     timestamptz := v_now + p_delay * interval '1 second';
    v_before timestamptz;
begin
    in_turn := true;
    if p_kind in ('interrupt', 'cancel', 'pause') then
        perform from mesh.job as j where j.app_id = p_app and j.job_id = p_job_id for share skip locked;
        if not found and exists (select from mesh.job as j where j.app_id = p_app and j.job_id = p_job_id) then
            outcome := 'busy';
            return;
        end if;
    end if;
    select j.generation, j.status, j.open into generation, v_status, v_open from mesh.job as j
     where j.app_id = p_app and j.job_id = p_job_id
       and (j.expires_at is null or j.expires_at > v_now)
       and (p_generation is null or j.generation = p_generation);
    if not found then
        outcome := 'missing';
        return;
    end if;
    if p_kind in ('added', 'interrupt', 'signal', 'cancel', 'pause') and v_status <= 0 then
        outcome := 'closed';
        return;
    end if;
    if p_kind = 'signal' then
        -- They keep their order: each is visible a microsecond after the one before that is still to come.
        v_at := greatest(v_at, (select max(s.visible_at) + interval '1 microsecond' from mesh.engine_stream as s
                                 where s.generation = put_message.generation and s.kind = 'signal' and s.visible_at >= v_now
                                   and s.visible_at < v_now + interval '1 second'));
    end if;
    if p_kind = 'cancel' and v_open ->> 'cancel' = 'true' then
        outcome := 'duplicate';
        return;
    end if;
    if p_kind = 'added' then
        select s.visible_at + interval '1 microsecond' into v_before
          from mesh.engine_stream as s
         where s.generation = put_message.generation and s.status = 'pending'
           and s.message_id = 'answer:' || p_activity || ':' || p_dimension::text;
        if found then
            in_turn := false;
            v_at := greatest(v_now, v_before);
        elsif not exists (select from mesh.worker_stream as s
                           where s.generation = put_message.generation and s.activity_id = p_activity
                             and s.dimension = p_dimension)
              and not exists (select from mesh.activity as a
                               where a.generation = put_message.generation and a.activity_id = p_activity
                                 and a.dimension = p_dimension and a.state in ('open', 'pending'))
        then
            outcome := 'closed';
            return;
        end if;
    end if;
    insert into mesh.engine_stream (
        app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, visible_at, created_at)
    values (p_app, p_job_id, put_message.generation, p_message, p_kind, p_activity, p_dimension, p_status, p_code, p_data,
            v_at, v_now)
    on conflict on constraint engine_stream_pk do nothing;
    outcome := case when found then 'sent' else 'duplicate' end;
end
$$;
