-- find_owner: the owner of a schema ($2), and whether he has the rights of a role ($1).
select r.rolname as owner, pg_catalog.pg_has_role(r.oid, $1::name, 'USAGE') as may
  from pg_catalog.pg_namespace as n
  join pg_catalog.pg_roles as r on r.oid = n.nspowner
 where n.nspname = $2
