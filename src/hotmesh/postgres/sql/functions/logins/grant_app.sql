-- grant_app: let a role run an app in this namespace: engines, workers, callers and the commands. It does not own the schema then,
-- may change no table, and neither make worker logins nor read what was done to them. Doing it again changes nothing; every
-- migration does it again, so that whoever may today may tomorrow.
-- To be called by the owner of the schema.
-- Raises   42704 if there is no such role, 22023 if it is a worker login.
create or replace function mesh.grant_app(p_role text) returns void language plpgsql as $$
declare
    v_object record;
begin
    -- Not left to GRANT, for which "public" is everybody.
    if not exists (select from pg_catalog.pg_roles as r where r.rolname = p_role) then
        raise exception 'role % does not exist: create it first', p_role using errcode = '42704';
    end if;
    if exists (select from mesh.worker_credential as c where c.role_name = p_role) then
        raise exception '% is a worker login, which may answer work of its topics and nothing else', p_role
            using errcode = '22023';
    end if;
    execute format('grant usage on schema %I to %I', mesh.namespace(), p_role);
    for v_object in
        select c.oid::regclass as name,
               case when c.relkind = 'v' or c.relname in ('schema_migration', 'secret', 'worker_credential') then 'select'
                    when c.relname = 'signal_lock' then 'select, update'  -- to lock its rows
                    when c.relname = 'worker_pending' then 'select, delete'
                    else 'select, insert, update, delete' end as rights
          from pg_catalog.pg_class as c
         where c.relnamespace = (select j.relnamespace from pg_catalog.pg_class as j where j.oid = 'mesh.job'::regclass)
           and c.relkind in ('r', 'p', 'v') and c.relname not in ('worker_credential_audit', 'worker_mark')
         order by c.relname
    loop
        execute format('grant %s on %s to %I', v_object.rights, v_object.name, p_role);
    end loop;
    for v_object in
        select p.oid::regprocedure as name from pg_catalog.pg_proc as p
         where p.pronamespace = (select j.relnamespace from pg_catalog.pg_class as j where j.oid = 'mesh.job'::regclass)
           and not (p.prosecdef and starts_with(p.proname, 'worker_')) and p.proname not in ('grant_app', 'grant_worker', 'make_worker_mark')
         order by p.oid
    loop
        execute format('grant execute on function %s to %I', v_object.name, p_role);
    end loop;
end
$$;
