-- has_ledger: whether a schema ($1) has the table of migrations.
-- Not by to_regclass: while this session waited for the lock, its caches still said what was true before.
select exists (
    select from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = 'schema_migration')
