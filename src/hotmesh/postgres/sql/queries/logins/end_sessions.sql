-- end_sessions: tell all sessions of a role ($1), in every database, to end.  Returns  how many there still are.
select count(pg_catalog.pg_terminate_backend(pid)) from pg_catalog.pg_stat_activity where usename = $1
