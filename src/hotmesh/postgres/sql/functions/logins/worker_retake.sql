-- worker_retake: for what a member of a worker login still counts as its own although its lease is over, so that others could take it.
-- Nothing happens where all of it is within its lease.
-- Locks    as worker_take, and only then.
-- Raises   53400 if the login gets no work for a while.
create or replace function mesh.worker_retake(
    p_login mesh.worker_credential, p_holder text, p_generation uuid[], p_activity text[], p_dimension text[]
) returns void language plpgsql as $$
begin
    if exists (
        select from unnest(p_generation, p_activity, p_dimension) as w(generation, activity, dimension)
          join mesh.worker_stream as s on s.generation = any (array[w.generation]) and s.activity_id = w.activity
               and s.dimension = w.dimension::integer[]
         where s.reserved_by = p_holder and (s.visible_at <= mesh.clock()) is true)
       and not mesh.worker_take(p_login) then
        raise exception 'the lease is over, and transactions of % that took work were rolled back too often: try again later',
            p_login.role_name using errcode = '53400';
    end if;
end
$$;
