-- find_valid_login: whether a worker login ($1) is revoked; no row if there is no such login, or no such role.
select c.revoked_at from mesh.worker_credential as c
  join pg_catalog.pg_roles as r on r.rolname = c.role_name
 where c.role_name = $1
