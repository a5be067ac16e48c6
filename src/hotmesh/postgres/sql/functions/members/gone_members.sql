-- gone_members: the members of an app that have died: they took the lock of their guid, and nobody has it now. Those that
-- were there before the server was restarted have ten seconds to come back.
-- Returns  their guids.
create or replace function mesh.gone_members(p_app text) returns setof text language sql stable as $$
    select m.guid
      from mesh.member as m
     where m.app_id = p_app
       and (m.joined_at > pg_postmaster_start_time()
            or pg_postmaster_start_time() < clock_timestamp() - interval '10 seconds')
       and not exists (
            select from pg_locks as l
             where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
               and (l.classid::bigint << 32) | l.objid::bigint = mesh.guid_key(m.app_id, m.guid)
               and l.database = (select d.oid from pg_database as d where d.datname = current_database()))
$$;
