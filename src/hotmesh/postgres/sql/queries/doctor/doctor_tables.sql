-- doctor_tables: the tables of a schema ($1): how many rows live and are dead, how large they are, and when they were vacuumed.
select c.relname::text as name, coalesce(s.n_live_tup, 0) as live, coalesce(s.n_dead_tup, 0) as dead,
       pg_total_relation_size(c.oid) as bytes, greatest(s.last_vacuum, s.last_autovacuum) as vacuumed_at,
       coalesce('autovacuum_enabled=false' = any (c.reloptions) or 'autovacuum_enabled=off' = any (c.reloptions), false)
           as never_vacuumed
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  left join pg_stat_all_tables as s on s.relid = c.oid
 where n.nspname = $1 and c.relkind = 'r'
 order by c.relname
