-- owns_schema: whether this session has the rights of the owner of a schema ($1).
select pg_catalog.pg_has_role(nspowner, 'USAGE') from pg_catalog.pg_namespace where nspname = $1
