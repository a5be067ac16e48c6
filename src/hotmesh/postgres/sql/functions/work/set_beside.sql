-- set_beside: say of work that p_member holds whether other work runs beside it in that process. Only what was alone when its process
-- died is known to be the reason, and may be given up for it.
-- Returns  whether it is still held.
create or replace function mesh.set_beside(
    p_member text, p_generation uuid, p_activity text, p_dimension text, p_beside boolean
) returns boolean language plpgsql as $$
begin
    update mesh.worker_stream as s
       set beside = p_beside
     where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[]
       and s.reserved_by = p_member and s.visible_at > mesh.clock();
    return found;
end
$$;
