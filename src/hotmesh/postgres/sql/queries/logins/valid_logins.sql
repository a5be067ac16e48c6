-- valid_logins: the worker logins that are not revoked.
select c.role_name from mesh.worker_credential as c
  join pg_catalog.pg_roles as r on r.rolname = c.role_name
 where c.revoked_at is null
 order by c.id
