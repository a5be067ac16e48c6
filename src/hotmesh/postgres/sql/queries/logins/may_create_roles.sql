-- may_create_roles: whether this session may create roles.
select rolsuper or rolcreaterole from pg_catalog.pg_roles where rolname = current_user
