-- answer_activity: exchange an attempt of an activity for its answer, by token, whoever holds it: nobody, or the process that still runs it.
-- Another attempt than p_attempt is none of the token's. With p_delay the attempt has failed, and the next one is visible after so many seconds.
-- Notifies the app's channel: that there is an answer, and that whoever runs the attempt is to end it.
-- Returns  whether the attempt was there.
create or replace function mesh.answer_activity(
    p_app text, p_generation uuid, p_activity text, p_dimension text, p_attempt integer, p_status text, p_code integer,
    p_data text, p_delay double precision, p_error text
) returns boolean language plpgsql as $$
declare
    v_work mesh.worker_stream;
begin
    select s.* into v_work from mesh.worker_stream as s
     where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[]
       and s.attempt = p_attempt
       for update;
    if not found then
        return false;
    end if;
    if p_delay is not null then
        update mesh.worker_stream as s
           set reserved_by = null, handed_over = null, attempt = s.attempt + 1, delivery = 0, last_error = p_error,
               visible_at = mesh.clock() + case when s.cancelled then 0 else p_delay end * interval '1 second'
                            + case when s.paused then interval '1000 years' else interval '0 seconds' end
         where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[];
    else
        delete from mesh.worker_stream as s
         where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[];
        insert into mesh.engine_stream (
            app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, started_at,
            work_attempt, visible_at, created_at)
        values (p_app, v_work.job_id, v_work.generation, 'answer:' || v_work.activity_id || ':' || v_work.dimension::text,
                'answer', v_work.activity_id, v_work.dimension, p_status, p_code, p_data::json, v_work.created_at,
                v_work.attempt, mesh.clock(), mesh.clock())
        on conflict on constraint engine_stream_pk do nothing;
    end if;
    perform mesh.wake(p_app, json_build_object(
        'e', 1, 'w', json_build_array(v_work.topic),
        'c', json_build_array(json_build_array(p_generation, p_activity, v_work.dimension, false)))::text);
    return true;
end
$$;
