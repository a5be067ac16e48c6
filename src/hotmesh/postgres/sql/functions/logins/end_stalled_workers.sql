-- end_stalled_workers: end the sessions of worker logins of an app that have had a transaction open for p_limit seconds,
-- use advisory locks, or belong to a revoked login. An honest worker takes no such lock, and its transactions last for
-- milliseconds. One that stays open keeps its row locks, and the engine from removing a job; it also keeps Postgres from
-- cleaning up.
-- Writes   worker_credential_audit.
-- Returns  the login and process of each session that was ended; null if the app has no worker logins.
create or replace function mesh.end_stalled_workers(p_app text, p_limit double precision) returns text[]
language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_session record;
    v_ended   text[] := '{}';
begin
    if not exists (select from mesh.worker_credential as c where c.app_id = p_app) then
        return null;
    end if;
    for v_session in
        select c.role_name, c.app_id, c.topics, a.pid
          from mesh.worker_credential as c
          join pg_stat_activity as a on a.usename = c.role_name
         where c.app_id = p_app and pg_has_role(current_user, a.usesysid, 'USAGE')
           and (a.xact_start < clock_timestamp() - p_limit * interval '1 second'
                      -- Who waits for a lock may be the victim; but not for long.
                      * case when a.wait_event_type = 'Lock' then 6 else 1 end
                or c.revoked_at is not null
                or exists (select from pg_locks as l where l.pid = a.pid and l.locktype = 'advisory'))
    loop
        if pg_terminate_backend(v_session.pid) then
            insert into mesh.worker_credential_audit (role_name, app_id, topics, action)
            values (v_session.role_name, v_session.app_id, v_session.topics, 'terminated');
            v_ended := v_ended || format('%s (process %s)', v_session.role_name, v_session.pid);
        end if;
    end loop;
    return v_ended;
end
$$;
