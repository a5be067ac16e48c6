-- doctor_app: an app ($1) in numbers, each counted up to 100,000: members that listen, jobs, what engines have to do, what was
-- given up, what is over and still there, and whose turn it is to delete that.
select a.active_version, exists (select from mesh.app_version as v where v.app_id = $1) as has_versions,
       (select count(*) from mesh.live_members($1) as m where m.engine) as engines,
       (select count(*) from mesh.live_members($1) as m where not m.engine) as others,
       exists (select from mesh.job as j where j.app_id = $1 and j.status > 0) as has_open_jobs,
       (select count(*) from (select from mesh.engine_stream as s
                               where s.app_id = $1 and s.visible_at <= mesh.clock() limit 100000) as x) as due_events,
       (select extract(epoch from mesh.clock() - min(s.visible_at))::double precision from mesh.engine_stream as s
         where s.app_id = $1 and s.visible_at <= mesh.clock()) as oldest_event,
       (select count(*) from (select from mesh.dead_letter as d where d.app_id = $1 limit 100000) as x) as dead_letters,
       (select count(*) from (select from mesh.job as j
                               where j.app_id = $1 and j.expires_at < mesh.clock() - interval '1 hour'
                               limit 100000) as x) as expired_jobs,
       (select u.due_at from mesh.upkeep as u where u.app_id = $1 and u.task = 'retention') as retention_due_at,
       array(select r.scope || case r.topic when '' then '' else ' of ' || r.topic end
               from mesh.throttle as r where r.app_id = $1 and r.rate < 0 order by 1) as paused,
       mesh.clock() as now
  from mesh.app as a where a.app_id = $1
