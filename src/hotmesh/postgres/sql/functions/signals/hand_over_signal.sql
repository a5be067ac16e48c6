-- hand_over_signal: give a signal to the oldest waiter under (topic, key), or keep it for one to come.
-- Locks    the caller holds the key (lock_signal_keys); waiter and signal cannot miss each other. Then the wait, which
--          a step may be about to end for another reason: it is waited for, so that no signal goes to a wait that has ended.
-- Writes   a message for the waiting job, and removes the registration unless the signal is pending (more will come);
--          or mesh.signal, replacing an earlier one, for p_keep seconds (null: it is dropped).
-- Returns  whether somebody waited.
create or replace function mesh.hand_over_signal(
    p_app text, p_topic text, p_key text, p_data json, p_status text, p_code integer, p_keep double precision
) returns boolean language plpgsql as $$
declare
    v_wait mesh.wait;
    v_now  constant timestamptz := mesh.clock();
begin
    loop
        select * into v_wait from mesh.wait as w
         where w.app_id = p_app and w.topic = p_topic and w.key = p_key
         order by w.created_at, w.generation limit 1 for update;
        -- Nothing is found, too, where the oldest one was removed while this waited for it; another one may be there.
        exit when found or not exists (
            select from mesh.wait as w where w.app_id = p_app and w.topic = p_topic and w.key = p_key);
    end loop;
    if v_wait.generation is null then
        if p_keep is not null then
            insert into mesh.signal (app_id, topic, key, ordinal, data, status, code, created_at, expires_at)
            values (p_app, p_topic, p_key, mesh.next_signal(p_app, p_topic, p_key), p_data, p_status, p_code, v_now,
                    v_now + p_keep * interval '1 second')
            on conflict on constraint signal_pk do update
               set data = excluded.data, status = excluded.status, code = excluded.code,
                   created_at = excluded.created_at, expires_at = excluded.expires_at;
        end if;
        return false;
    end if;
    if p_status <> 'pending' then
        delete from mesh.wait as w
         where w.generation = v_wait.generation and w.activity_id = v_wait.activity_id
           and w.dimension = v_wait.dimension;
    end if;
    insert into mesh.engine_stream (
        app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, visible_at, created_at)
    values (p_app, v_wait.job_id, v_wait.generation, 'signal:' || gen_random_uuid(), 'signal', v_wait.activity_id,
            v_wait.dimension, p_status, p_code, p_data,
            -- Signals keep their order: each is visible a microsecond after the one before that is still to come.
            coalesce((select max(s.visible_at) + interval '1 microsecond' from mesh.engine_stream as s
                       where s.generation = v_wait.generation and s.kind = 'signal'
                         and s.visible_at >= v_now and s.visible_at < v_now + interval '1 second'), v_now),
            v_now);
    return true;
end
$$;
