-- activate_version: make a deployed version the one that new jobs start on.
-- Locks    activation_key, without waiting: a session that agreed with the others first holds it already. Then the app's
--          row; every step committed afterwards has seen the change, or is refused and computed again.
-- Returns  activated; missing: the version was never deployed; changed: it was deployed anew, p_checksum is that of an
--          older definition; busy: another session is activating. Nothing has changed then.
create or replace function mesh.activate_version(p_app text, p_version text, p_checksum text, p_wake text) returns text
language plpgsql as $$
declare
    v_checksum text;
begin
    if not pg_try_advisory_xact_lock(mesh.activation_key(p_app)) then
        return 'busy';
    end if;
    perform from mesh.app as a where a.app_id = p_app for update;
    select v.checksum into v_checksum from mesh.app_version as v where v.app_id = p_app and v.version = p_version;
    if v_checksum is null then
        return 'missing';
    elsif v_checksum <> p_checksum then
        return 'changed';
    end if;
    update mesh.app_version as v set activated_at = mesh.clock() where v.app_id = p_app and v.version = p_version;
    update mesh.app as a
       set active_version = p_version, epoch = a.epoch + 1, updated_at = mesh.clock()
     where a.app_id = p_app and a.active_version is distinct from p_version;
    if found then
        perform mesh.wake(p_app, p_wake);
    end if;
    return 'activated';
end
$$;
