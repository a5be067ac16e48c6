-- has_rights_of: whether this session has the rights of a role ($1).
select pg_catalog.pg_has_role($1::name, 'USAGE')
