-- bury_work: move held work to the dead letters and answer its activity with the error, in one statement.
-- Returns  whether it was still held.
create or replace function mesh.bury_work(
    p_app text, p_member text, p_generation uuid, p_activity text, p_dimension text, p_reason text, p_error text,
    p_wake text
) returns boolean language plpgsql as $$
declare
    v_work mesh.worker_stream;
begin
    delete from mesh.worker_stream as s
     where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[]
       and s.reserved_by = p_member
    returning s.* into v_work;
    if not found then
        return false;
    end if;
    insert into mesh.dead_letter (
        app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, dead_at)
    values (p_app, 'worker', v_work.topic, v_work.job_id, v_work.generation, v_work.activity_id, v_work.dimension,
            row_to_json(v_work), p_reason, mesh.clock());
    insert into mesh.engine_stream (
        app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, started_at, work_attempt,
        visible_at, created_at)
    values (p_app, v_work.job_id, v_work.generation, 'answer:' || v_work.activity_id || ':' || v_work.dimension::text,
            'answer', v_work.activity_id, v_work.dimension, 'error', coalesce((p_error::json ->> 'code')::integer, 500),
            p_error::json, v_work.created_at, v_work.attempt, mesh.clock(), mesh.clock());
    perform mesh.wake(p_app, p_wake);
    return true;
end
$$;
