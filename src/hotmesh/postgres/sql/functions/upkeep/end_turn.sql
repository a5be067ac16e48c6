-- end_turn: a task is done for now; the next turn is in p_interval seconds, for whoever asks first.
create or replace function mesh.end_turn(
    p_app text, p_task text, p_member text, p_interval double precision
) returns void language sql as $$
    update mesh.upkeep as u set held_by = null, due_at = mesh.clock() + p_interval * interval '1 second'
     where u.app_id = p_app and u.task = p_task and u.held_by = p_member
$$;
