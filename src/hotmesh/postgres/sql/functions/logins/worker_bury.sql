-- worker_bury: for worker logins. Move work that this member of this login holds to the dead letters, and answer its
-- activity with the error.
-- Returns  whether it was still held.
create or replace function mesh.worker_bury(
    p_member text, p_generation uuid, p_activity text, p_dimension text, p_reason text, p_error text
) returns boolean language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login constant mesh.worker_credential := mesh.worker_login();
begin
    return mesh.bury_work(
        v_login.app_id, mesh.worker_holder(v_login, p_member), p_generation, p_activity, p_dimension,
        left(coalesce(p_reason, 'given up'), 2000), mesh.worker_check_payload(p_error, 'error', 598, v_login.max_payload),
        '{"e":1}');
end
$$;
