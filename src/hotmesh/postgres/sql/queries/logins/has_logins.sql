-- has_logins: whether a schema ($1) has the table of worker logins.
select exists (
    select from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = 'worker_credential')
