-- namespaces: the database, and its schemas that have the tables of hotmesh.
select current_database()::text as database,
       array(select n.nspname::text from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
              where c.relname = 'worker_stream' and c.relkind in ('r', 'p')
                and exists (select from pg_catalog.pg_class as l where l.relnamespace = n.oid and l.relname = 'schema_migration')
              order by n.nspname) as namespaces
