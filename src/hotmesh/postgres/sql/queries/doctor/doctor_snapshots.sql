-- doctor_snapshots: who keeps rows that are gone from being removed: sessions of this database with an old transaction, its prepared
-- transactions, replication slots and standbys. `transactions`: so many have begun since; `since`, `asked_at` (its last statement):
-- null where it is not known, or not shown. A logical slot holds back the system catalog alone, and the log.
select 'session' as kind, a.pid::text as name, coalesce(a.usename::text, '') as role,
       coalesce(a.application_name, '') as application, coalesce(a.state, '') as state, a.xact_start as since,
       a.query_start as asked_at, greatest(age(a.backend_xmin), age(a.backend_xid))::bigint as transactions
  from pg_stat_activity as a
 where a.pid <> pg_backend_pid() and (a.backend_xmin is not null or a.backend_xid is not null)
   and coalesce(a.backend_type, 'client backend') not in ('autovacuum worker', 'walsender')
   -- Of other databases nobody holds back this one.
   and (a.datid is null or a.datid = (select d.oid from pg_database as d where d.datname = current_database()))
 union all
select 'prepared transaction', p.gid, p.owner::text, '', '', p.prepared, null, age(p.transaction)::bigint
  from pg_prepared_xacts as p where p.database = current_database()
 union all
select case when s.xmin is null then 'logical replication slot' else 'replication slot' end, s.slot_name::text, '', '',
       case when s.active then 'active' else 'inactive' end, null, null, age(coalesce(s.xmin, s.catalog_xmin))::bigint
  from pg_replication_slots as s where s.xmin is not null or s.catalog_xmin is not null
 union all
select 'standby', coalesce(r.client_addr::text, r.pid::text), coalesce(r.usename::text, ''),
       coalesce(r.application_name, ''), coalesce(r.state, ''), null, null, age(r.backend_xmin)::bigint
  from pg_stat_replication as r where r.backend_xmin is not null
 order by 8 desc
