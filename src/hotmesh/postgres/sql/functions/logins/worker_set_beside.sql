-- worker_set_beside: for worker logins, as set_beside: whether other work runs beside work that this member of this login holds.
-- Returns  whether it is still held.
create or replace function mesh.worker_set_beside(
    p_member text, p_generation uuid, p_activity text, p_dimension text, p_beside boolean
) returns boolean language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login  constant mesh.worker_credential := mesh.worker_login();
    v_holder constant text := mesh.worker_holder(v_login, p_member);
begin
    update mesh.worker_stream as s
       set beside = p_beside
     where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[]
       and s.reserved_by = v_holder and s.reserved_at is not null and s.visible_at > mesh.clock();
    return found;
end
$$;
