-- worker_holder: what stands in reserved_by for a member that uses a worker login. The login is part of it, so that nobody
-- can answer for a member of another login, or for one of the mesh, by using its name.
create or replace function mesh.worker_holder(p_login mesh.worker_credential, p_member text) returns text
language plpgsql immutable as $$
begin
    if p_member is null or length(p_member) not between 1 and 200 then
        raise exception 'the name of a member has 1 to 200 characters' using errcode = '22023';
    end if;
    return mesh.worker_prefix(p_login.role_name) || p_member;
end
$$;
