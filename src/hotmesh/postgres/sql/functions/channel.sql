-- channel: the name of an app's NOTIFY channel: unique by schema and app, and within Postgres' limit of 63 bytes.
create or replace function mesh.channel(p_app text) returns text language sql stable as $$
    select case when octet_length(name) <= 63 then name else 'hotmesh:' || md5(name) end
      from (select 'hotmesh:' || n.nspname || ':' || p_app as name
              from pg_catalog.pg_class as c
              join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
             where c.oid = 'mesh.job'::regclass) as named
$$;
