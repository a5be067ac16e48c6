-- make_worker_mark: what worker_take needs for a worker login. Doing it again changes nothing.
-- To be called by who makes logins.  Writes  worker_mark, and a sequence, which belongs to the owner of the tables.
create or replace function mesh.make_worker_mark(p_role text) returns void language plpgsql as $$
declare
    v_id    bigint;
    v_owner name;
begin
    select c.id into strict v_id from mesh.worker_credential as c where c.role_name = p_role;
    select pg_get_userbyid(c.relowner) into v_owner from pg_catalog.pg_class as c where c.oid = 'mesh.job'::regclass;
    if to_regclass(format('%I.worker_mark_%s', mesh.namespace(), v_id)) is null then
        execute format('create sequence %I.worker_mark_%s minvalue 0', mesh.namespace(), v_id);
        execute format('alter sequence %I.worker_mark_%s owner to %I', mesh.namespace(), v_id, v_owner);
    end if;
    insert into mesh.worker_mark (credential_id, mark) values (v_id, 0) on conflict on constraint worker_mark_pk do nothing;
end
$$;
