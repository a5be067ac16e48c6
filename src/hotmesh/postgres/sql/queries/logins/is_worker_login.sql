-- is_worker_login: whether the login may call the procedures of worker logins in schema $1, and not read its tables.
select exists (
    select from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
     where n.nspname = $1 and p.proname = 'worker_hello' and pg_catalog.has_function_privilege(p.oid, 'execute'))
 and not exists (
    select from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = 'job' and pg_catalog.has_table_privilege(c.oid, 'select'))
