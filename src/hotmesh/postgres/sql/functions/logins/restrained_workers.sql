-- restrained_workers: the worker logins of an app that get no work at the moment, because transactions of theirs that took
-- some were rolled back too often (worker_take).
-- Writes   worker_credential_audit, at most once a minute for each.
-- Returns  their names.
create or replace function mesh.restrained_workers(p_app text) returns text[] language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_now   constant bigint := (extract(epoch from clock_timestamp()) * 1000)::bigint;
    v_found text[];
begin
    with marked as (
        select c.role_name, c.app_id, c.topics, m.mark as committed, coalesce(pg_sequence_last_value(s.oid), 0) as mark
          from mesh.worker_credential as c
          join mesh.worker_mark as m on m.credential_id = c.id
         cross join lateral (select to_regclass(format('%I.worker_mark_%s', mesh.namespace(), c.id)) as oid) as s
         where c.app_id = p_app and c.revoked_at is null and s.oid is not null
    ), restrained as (
        select k.* from marked as k
         where greatest(0, (k.mark & 262143) - greatest(0, v_now - (k.mark >> 18)) / 5)
               + case when k.mark <> k.committed then least(7000, greatest(0, v_now - (k.mark >> 18))) else 0 end > 20000
    ), told as (
        insert into mesh.worker_credential_audit (role_name, app_id, topics, action)
        select r.role_name, r.app_id, r.topics, 'restrained' from restrained as r
         where not exists (select from mesh.worker_credential_audit as a
                            where a.role_name = r.role_name and a.action = 'restrained'
                              and a.done_at > clock_timestamp() - interval '1 minute')
        returning role_name
    )
    select array_agg(t.role_name) into v_found from told as t;
    return coalesce(v_found, '{}');
end
$$;
