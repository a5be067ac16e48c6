-- explain_jobs: all that keeps jobs ($2, of app $1) from being complete, one row for each; of each kind at most $3 and
-- the oldest first, as JSON. `number` counts work, messages and children in full. `topics` says of each topic and name with
-- work who holds such, or other work of it; `gone`, which members of the app have died.
select j.job_id, j.version, j.topic, mesh.job_state(j.status, j.error, j.queue) as state, j.status, j.error, j.open, j.cancelled,
       j.created_at, j.updated_at, j.ended_at, j.expires_at, mesh.clock() as now, j.queue, j.recoveries,
       case when j.held then coalesce((select t.member from mesh.tenure as t where t.tenure = j.tenure), '') end as holder,
       (select count(*) from mesh.obligations(j.generation) as o where o.kind in ('work', 'message', 'child')) as number,
       (select json_agg(x) from (
           (select o.* from mesh.obligations(j.generation) as o where o.kind = 'work' order by o.since limit $3)
            union all
           (select o.* from mesh.obligations(j.generation) as o where o.kind = 'message' order by o.since limit $3)
            union all
           (select o.* from mesh.obligations(j.generation) as o where o.kind = 'timer' order by o.until limit $3)
            union all
           (select o.* from mesh.obligations(j.generation) as o where o.kind = 'signal' order by o.since limit $3)
            union all
           (select o.* from mesh.obligations(j.generation) as o where o.kind = 'child' order by o.since limit $3)
           ) as x) as obligations,
       (select json_agg(x) from (
           select t.topic, t.workflow_name, array(
                   select distinct h.reserved_by from mesh.worker_stream as h
                    where h.app_id = j.app_id and h.topic = t.topic and h.visible_at > mesh.clock()
                      and h.workflow_name = t.workflow_name and coalesce(h.reserved_by, '') <> '' limit 10) as holders,
                  array(
                   select distinct h.reserved_by from mesh.worker_stream as h
                    where h.app_id = j.app_id and h.topic = t.topic and h.visible_at > mesh.clock()
                      and h.workflow_name <> t.workflow_name and coalesce(h.reserved_by, '') <> '' limit 10) as others
             from (select distinct w.topic, w.workflow_name from mesh.worker_stream as w
                    where w.generation = j.generation limit $3) as t) as x) as topics,
       (select json_agg(x) from (
           select a.activity_id, a.dimension, a.type, a.state, a.started_at
             from mesh.activity as a where a.generation = j.generation and a.state <> 'closed'
            order by a.started_at limit $3) as x) as records,
       (select json_agg(x) from (
           select d.id, d.topic, d.activity_id, d.dimension, d.reason, d.dead_at
             from mesh.dead_letter as d where d.generation = j.generation
            order by d.id limit $3) as x) as dead_letters,
       (select json_agg(x) from (
           select r.scope, r.topic, r.rate
             from mesh.throttle as r
            where r.app_id = j.app_id
              and (r.topic = '' or exists (
                  select from mesh.worker_stream as w where w.generation = j.generation and w.topic = r.topic))
            order by r.scope, r.topic limit $3) as x) as rates,
       array(select g.guid from mesh.gone_members($1) as g(guid)) as gone
  from mesh.job as j
 where j.app_id = $1 and j.job_id = any ($2)
   and (j.expires_at is null or j.expires_at > mesh.clock())
