-- databases_with_settings: the databases for which a role ($1) has settings of its own.
select d.datname::text from pg_catalog.pg_db_role_setting as s
  join pg_catalog.pg_roles as r on r.oid = s.setrole
  join pg_catalog.pg_database as d on d.oid = s.setdatabase
 where r.rolname = $1
