-- list_logins: the worker logins of an app ($1), or of all, revoked ones included, oldest first; whether Postgres lets
-- each in, and its sessions now.
select c.id, c.role_name, c.app_id, c.topics, c.created_at, c.revoked_at, c.rotated_at,
       coalesce(r.rolcanlogin, false) as can_login, nullif(r.rolconnlimit, -1) as connection_limit,
       (select count(*) from pg_catalog.pg_stat_activity as a where a.usename = c.role_name) as sessions
  from mesh.worker_credential as c
  left join pg_catalog.pg_roles as r on r.rolname = c.role_name
 where $1::text is null or c.app_id = $1
 order by c.created_at, c.id
