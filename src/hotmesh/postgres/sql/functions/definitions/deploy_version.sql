-- deploy_version: store a version of an app; an identical one is left as it is.
-- Locks    the app's row.  Returns  whether anything changed. The active version stays what it was.
create or replace function mesh.deploy_version(
    p_app text, p_version text, p_graph text, p_checksum text, p_wake text
) returns boolean language plpgsql as $$
declare
    v_known text;
begin
    insert into mesh.app (app_id) values (p_app) on conflict on constraint app_pk do nothing;
    perform from mesh.app as a where a.app_id = p_app for update;
    select v.checksum into v_known from mesh.app_version as v where v.app_id = p_app and v.version = p_version;
    if v_known = p_checksum then
        return false;
    end if;
    insert into mesh.app_version (app_id, version, graph, checksum)
    values (p_app, p_version, p_graph::json, p_checksum)
    on conflict on constraint app_version_pk do update
       set graph = excluded.graph, checksum = excluded.checksum, revision = app_version.revision + 1,
           deployed_at = mesh.clock();
    update mesh.app as a set epoch = a.epoch + 1, updated_at = mesh.clock() where a.app_id = p_app;
    perform mesh.wake(p_app, p_wake);
    return true;
end
$$;
