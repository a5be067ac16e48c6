-- find_role: whether a role ($1) may do what no worker login may; no row if there is no such role.
select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls as mighty
  from pg_catalog.pg_roles where rolname = $1
