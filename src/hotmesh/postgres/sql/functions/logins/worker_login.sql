-- worker_login: what the login of this session may do. Used by the procedures for worker logins, which all begin with it.
-- The login is session_user, which `set role` does not change; what it may do stands in a table it cannot write, and in
-- no setting, which it could.
-- Writes   hotmesh.now, for this transaction: a login that could move the clock could take what others hold.
-- Raises   42501 if it is none of this namespace's worker logins, or was revoked.
create or replace function mesh.worker_login() returns mesh.worker_credential language plpgsql as $$
declare
    v_login mesh.worker_credential;
begin
    perform set_config('hotmesh.now', '', true);
    select * into v_login from mesh.worker_credential as c
     where c.role_name = session_user and c.revoked_at is null;
    if not found then
        raise exception 'access denied: % is no worker login of this namespace, or was revoked', session_user
            using errcode = '42501';
    end if;
    return v_login;
end
$$;
