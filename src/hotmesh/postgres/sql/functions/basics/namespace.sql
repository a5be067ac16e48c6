-- namespace: the name of the schema that holds these tables.
create or replace function mesh.namespace() returns text language sql stable as $$
    select n.nspname::text
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where c.oid = 'mesh.job'::regclass
$$;
