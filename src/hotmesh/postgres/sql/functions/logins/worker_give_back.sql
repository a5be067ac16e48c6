-- worker_give_back: for worker logins, as give_back_work: whatever this member of this login still holds, or what those
-- claims reserved, is for everybody at once. It counts as delivered, as in worker_postpone.
-- Returns  how much it was.
create or replace function mesh.worker_give_back(p_member text, p_reservations bigint[] default null) returns integer
language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login  constant mesh.worker_credential := mesh.worker_login();
    v_holder constant text := mesh.worker_holder(v_login, p_member);
    v_topics text[];
begin
    with given as (
        update mesh.worker_stream as s
           set reserved_by = null, reserved_at = null, visible_at = mesh.clock(),
               beside = case when s.beside = false then true else s.beside end
         where s.reserved_at is not null and s.reserved_by collate "C" = v_holder and s.reserved_by = v_holder
           and s.visible_at > mesh.clock() and (p_reservations is null or s.reservation = any (p_reservations))
        returning s.topic
    )
    select array_agg(distinct g.topic) into v_topics from given as g;
    if v_topics is null then
        return 0;
    end if;
    perform mesh.wake(v_login.app_id, json_build_object('w', v_topics)::text);
    return cardinality(v_topics);
end
$$;
