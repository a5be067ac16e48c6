-- bury_work: move held work to the dead letters and answer its activity with the error, in one statement.
-- Where the error says {dead_letter}, the number of the dead letter is put.
-- Returns  that number; null: it was not held any more.
create or replace function mesh.bury_work(
    p_app text, p_member text, p_generation uuid, p_activity text, p_dimension text, p_reason text, p_error text,
    p_wake text
) returns bigint language plpgsql as $$
declare
    v_work  mesh.worker_stream;
    v_id    bigint;
    v_error json;
begin
    delete from mesh.worker_stream as s
     where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[]
       and s.reserved_by = p_member
    returning s.* into v_work;
    if not found then
        return null;
    end if;
    insert into mesh.dead_letter (
        app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, dead_at)
    values (p_app, 'worker', v_work.topic, v_work.job_id, v_work.generation, v_work.activity_id, v_work.dimension,
            row_to_json(v_work), p_reason, mesh.clock())
    returning id into v_id;
    v_error := replace(p_error, '{dead_letter}', v_id::text)::json;
    insert into mesh.engine_stream (
        app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, started_at, work_attempt,
        visible_at, created_at)
    values (p_app, v_work.job_id, v_work.generation, 'answer:' || v_work.activity_id || ':' || v_work.dimension::text,
            'answer', v_work.activity_id, v_work.dimension, 'error', coalesce((v_error ->> 'code')::integer, 500),
            v_error, v_work.created_at, v_work.attempt, mesh.clock(), mesh.clock());
    perform mesh.wake(p_app, p_wake);
    return v_id;
end
$$;
