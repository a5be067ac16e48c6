-- grant_worker: let a worker login use the namespace, its procedures, and nothing else of it.
create or replace function mesh.grant_worker(p_role text) returns void language plpgsql as $$
declare
    v_procedure regprocedure;
begin
    execute format('revoke all on all tables in schema %I from %I', mesh.namespace(), p_role);
    execute format('revoke all on all sequences in schema %I from %I', mesh.namespace(), p_role);
    execute format('revoke all on all routines in schema %I from %I', mesh.namespace(), p_role);
    execute format('revoke all on schema %I from %I', mesh.namespace(), p_role);
    execute format('grant usage on schema %I to %I', mesh.namespace(), p_role);
    for v_procedure in
        select p.oid from pg_catalog.pg_proc as p
         where p.pronamespace = (select c.relnamespace from pg_catalog.pg_class as c where c.oid = 'mesh.job'::regclass)
           and p.prosecdef and starts_with(p.proname, 'worker_')
    loop
        execute format('grant execute on function %s to %I', v_procedure, p_role);
    end loop;
end
$$;
