-- doctor_rights: what this login may not do in a schema ($1) that an app has to: the same that grant_app grants.
select case when has_schema_privilege(n.oid, 'usage') then null else 'usage of schema ' || n.nspname end as missing
  from pg_namespace as n where n.nspname = $1
 union all
select w.verb || ' on ' || c.relname
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
 cross join lateral unnest(
       case when c.relkind = 'v' or c.relname in ('schema_migration', 'secret', 'worker_credential') then array['select']
            when c.relname = 'signal_lock' then array['select', 'update']
            when c.relname = 'worker_pending' then array['select', 'delete']
            else array['select', 'insert', 'update', 'delete'] end) as w(verb)
 where n.nspname = $1 and c.relkind in ('r', 'p', 'v') and c.relname not in ('worker_credential_audit', 'worker_mark')
   and not has_table_privilege(c.oid, w.verb)
 union all
select 'execute on ' || p.proname
  from pg_proc as p
  join pg_namespace as n on n.oid = p.pronamespace
 where n.nspname = $1 and not (p.prosecdef and starts_with(p.proname, 'worker_'))
   and p.proname not in ('grant_app', 'grant_worker', 'make_worker_mark') and not has_function_privilege(p.oid, 'execute')
