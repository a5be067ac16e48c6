-- doctor_holders: who holds work of an app ($1), how much, for how many seconds more, and whether the lock of its guid is held,
-- as it is by every member that listens. Worker logins have no such lock, and are left out.
select w.reserved_by as member, count(*) as held,
       extract(epoch from max(w.visible_at) - mesh.clock())::double precision as seconds,
       exists (select from pg_locks as l
                where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
                  and (l.classid::bigint << 32) | l.objid::bigint = mesh.guid_key($1, w.reserved_by)) as is_there
  from mesh.worker_stream as w
 where w.app_id = $1 and w.reserved_by is not null and w.reserved_at is null and w.visible_at > mesh.clock()
 group by w.reserved_by order by w.reserved_by
