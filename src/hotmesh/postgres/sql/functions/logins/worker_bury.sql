-- worker_bury: for worker logins. Move work that this member of this login holds to the dead letters, and answer its
-- activity with the error.
-- Locks    as worker_take if its lease is over.
-- Returns  whether it was still held.
create or replace function mesh.worker_bury(
    p_member text, p_generation uuid, p_activity text, p_dimension text, p_reason text, p_error text
) returns boolean language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login  constant mesh.worker_credential := mesh.worker_login();
    v_holder constant text := mesh.worker_holder(v_login, p_member);
    v_error  constant text := mesh.worker_check_payload(p_error, 'error', 598, v_login.max_payload);
begin
    perform mesh.worker_check_encoded(
                v_login.app_id, s.job_id, s.generation, s.activity_id, s.dimension, v_error)
       from mesh.worker_stream as s
      where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[]
        and s.reserved_by = v_holder;
    perform mesh.worker_retake(v_login, v_holder, array[p_generation], array[p_activity], array[p_dimension]);
    return mesh.bury_work(
        v_login.app_id, v_holder, p_generation, p_activity, p_dimension, left(coalesce(p_reason, 'given up'), 2000), v_error,
        '{"e":1}') is not null;
end
$$;
