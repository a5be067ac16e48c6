-- activate_version: make a deployed version the one that new jobs start on.
-- Locks    the app's row; every step committed afterwards has seen the change, or is refused and computed again.
-- Returns  false if the version was never deployed; nothing has changed then.
create or replace function mesh.activate_version(p_app text, p_version text, p_wake text) returns boolean
language plpgsql as $$
begin
    perform from mesh.app as a where a.app_id = p_app for update;
    update mesh.app_version as v set activated_at = mesh.clock() where v.app_id = p_app and v.version = p_version;
    if not found then
        return false;
    end if;
    update mesh.app as a
       set active_version = p_version, epoch = a.epoch + 1, updated_at = mesh.clock()
     where a.app_id = p_app and a.active_version is distinct from p_version;
    if found then
        perform pg_notify(mesh.channel(p_app), p_wake);
    end if;
    return true;
end
$$;
