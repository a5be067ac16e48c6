-- list_migrations: what has run, with the checksum of what it was then; version 0 stands for the stored functions.
select version, name, checksum from mesh.schema_migration
