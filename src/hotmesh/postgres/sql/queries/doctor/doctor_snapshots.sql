-- doctor_snapshots: who keeps rows that are gone from being removed: sessions with an old transaction, prepared transactions,
-- replication slots and standbys. `transactions`: so many have begun since; `since`: null where it is not known, or not shown.
select 'session' as kind, a.pid::text as name, coalesce(a.usename::text, '') as role,
       coalesce(a.application_name, '') as application, coalesce(a.state, '') as state, a.xact_start as since,
       greatest(age(a.backend_xmin), age(a.backend_xid))::bigint as transactions
  from pg_stat_activity as a
 where a.pid <> pg_backend_pid() and (a.backend_xmin is not null or a.backend_xid is not null)
   and coalesce(a.backend_type, 'client backend') not in ('autovacuum worker', 'walsender')
 union all
select 'prepared transaction', p.gid, p.owner::text, '', '', p.prepared, age(p.transaction)::bigint
  from pg_prepared_xacts as p
 union all
select 'replication slot', s.slot_name::text, '', '', case when s.active then 'active' else 'inactive' end, null,
       greatest(age(s.xmin), age(s.catalog_xmin))::bigint
  from pg_replication_slots as s where s.xmin is not null or s.catalog_xmin is not null
 union all
select 'standby', coalesce(r.client_addr::text, r.pid::text), coalesce(r.usename::text, ''),
       coalesce(r.application_name, ''), coalesce(r.state, ''), null, age(r.backend_xmin)::bigint
  from pg_stat_replication as r where r.backend_xmin is not null
 order by 7 desc
