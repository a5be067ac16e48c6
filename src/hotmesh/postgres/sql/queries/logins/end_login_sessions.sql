-- end_login_sessions: end the sessions of worker logins in this database, as far as this session may, and wait until they have ended.
-- Returns  how many there were.
select count(pg_catalog.pg_terminate_backend(a.pid, 5000))
  from pg_catalog.pg_stat_activity as a
 where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid()
   and a.usename in (select c.role_name from mesh.worker_credential as c)
   and pg_catalog.pg_has_role(a.usesysid, 'USAGE')
