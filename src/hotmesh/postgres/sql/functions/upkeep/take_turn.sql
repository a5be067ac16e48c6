-- take_turn: begin, or go on with, a task that one process of an app at a time does.
-- Writes   the turn, held until now + p_lease; a process that dies is succeeded when its lease is over. Those who wait
--          only read.
-- Returns  null if the turn is p_member's; else in how many seconds to ask again.
create or replace function mesh.take_turn(
    p_app text, p_task text, p_member text, p_lease double precision
) returns double precision language plpgsql as $$
declare
    v_turn mesh.upkeep;
begin
    select * into v_turn from mesh.upkeep as u where u.app_id = p_app and u.task = p_task;
    if not found then
        insert into mesh.upkeep (app_id, task, due_at) values (p_app, p_task, mesh.clock())
        on conflict on constraint upkeep_pk do nothing;
    elsif v_turn.due_at > mesh.clock() and v_turn.held_by is distinct from p_member then
        return extract(epoch from v_turn.due_at - mesh.clock());
    end if;
    update mesh.upkeep as u set held_by = p_member, due_at = mesh.clock() + p_lease * interval '1 second'
     where u.app_id = p_app and u.task = p_task and (u.due_at <= mesh.clock() or u.held_by = p_member);
    return case when found then null else p_lease end;
end
$$;
