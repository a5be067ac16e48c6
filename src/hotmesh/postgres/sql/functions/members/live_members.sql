-- live_members: the sessions of all members of an app that listen at this moment, and whether each has an engine.
create or replace function mesh.live_members(p_app text) returns table (session integer, engine boolean)
language sql stable as $$
    select l.pid, k.engine
      from (values (mesh.member_key(p_app, true), true), (mesh.member_key(p_app, false), false)) as k(key, engine)
      join pg_locks as l on l.locktype = 'advisory' and l.objsubid = 1 and l.granted
                        and (l.classid::bigint << 32) | l.objid::bigint = k.key
     where not exists (
            -- A worker login is no member, whatever locks it takes.
            select from pg_stat_activity as a join mesh.worker_credential as c on c.role_name = a.usename
             where a.pid = l.pid)
       and l.database = (select d.oid from pg_database as d where d.datname = current_database())
$$;
