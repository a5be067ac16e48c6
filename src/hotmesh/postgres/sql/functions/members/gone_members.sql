-- gone_members: the members of an app that have died: they took the lock of their guid, and nobody has it now. Those that
-- were there before the server was restarted have ten seconds to come back.
-- The locks are read once, and the key of each guid is computed once: each engine looks all the time.
-- Returns  their guids.
create or replace function mesh.gone_members(p_app text) returns setof text language sql stable as $$
    with app as materialized (
        select mesh.channel(p_app) as channel
    ), held as materialized (
        select (l.classid::bigint << 32) | l.objid::bigint as key
          from pg_locks as l
         where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
           and l.database = (select d.oid from pg_database as d where d.datname = current_database())
    )
    select m.guid
      from mesh.member as m
     cross join app as a
     where m.app_id = p_app
       and (m.joined_at > pg_postmaster_start_time()
            or pg_postmaster_start_time() < clock_timestamp() - interval '10 seconds')
       and mesh.guid_key_on(a.channel, m.guid) not in (select h.key from held as h)
$$;
