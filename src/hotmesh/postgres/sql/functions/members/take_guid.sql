-- take_guid: let this session, which listens, have a guid until it ends.
-- Locks    guid_key, without waiting.  Writes  mesh.member, so that it can be told when the lock is gone.
-- Returns  null, or the session that has it. A worker login that has taken the lock has no guid: then nobody has it.
create or replace function mesh.take_guid(p_app text, p_guid text, p_engine boolean default false) returns integer language plpgsql as $$
declare
    v_key    bigint := mesh.guid_key(p_app, p_guid);
    v_holder integer;
    v_login  boolean;
begin
    loop
        if pg_try_advisory_lock(v_key) then
            insert into mesh.member (app_id, guid, joined_at, engine) values (p_app, p_guid, clock_timestamp(), p_engine)
            on conflict on constraint member_pk do update
               set joined_at = excluded.joined_at, engine = excluded.engine, died_at = null;
            return null;
        end if;
        select l.pid,
               exists (select from pg_stat_activity as a join mesh.worker_credential as c on c.role_name = a.usename
                        where a.pid = l.pid)
          into v_holder, v_login
          from pg_locks as l
         where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
           and (l.classid::bigint << 32) | l.objid::bigint = v_key
           and l.database = (select d.oid from pg_database as d where d.datname = current_database());
        if found then
            return case when v_login then null else v_holder end;
        end if;
        -- It has ended between the two looks.
    end loop;
end
$$;
