-- channel: the name of an app's NOTIFY channel: unique by schema and app, and within Postgres' limit of 63 bytes.
create or replace function mesh.channel(p_app text) returns text language sql stable as $$
    select case when octet_length(name) <= 63 then name else 'hotmesh:' || md5(name) end
      from (select 'hotmesh:' || mesh.namespace() || ':' || p_app as name) as named
$$;
