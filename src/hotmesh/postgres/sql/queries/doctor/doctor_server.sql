-- doctor_server: what the server is, how it is set, and how many connections there is room for. `sees_all`: whether this login
-- is shown the sessions of others in full.
select current_setting('server_version_num')::integer as version_number,
       split_part(current_setting('server_version'), ' ', 1) as version,
       clock_timestamp() as now, current_user::text as role, current_database()::text as database,
       current_setting('autovacuum') = 'on' and current_setting('track_counts') = 'on' as autovacuum,
       pg_has_role(current_user, 'pg_read_all_stats', 'usage') as sees_all,
       current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
           - coalesce(current_setting('reserved_connections', true)::integer, 0) as most_connections,
       (select count(*) from pg_stat_activity as a where a.datid is not null) as connections,
       (select d.datconnlimit from pg_database as d where d.datname = current_database()) as database_limit,
       (select count(*) from pg_stat_activity as a where a.datname = current_database()) as database_connections,
       (select r.rolconnlimit from pg_roles as r where r.rolname = current_user) as role_limit,
       (select count(*) from pg_stat_activity as a where a.usename = current_user) as role_connections
