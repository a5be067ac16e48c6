-- explain_jobs: all that keeps jobs ($2, of app $1) from being complete, one row for each; of each kind at most $3 and
-- the oldest first, as JSON. `topics` says of each topic and name with work who holds such, or other work of it.
-- A child that goes on after its answer (an early one by `persist`, or an error) keeps nobody.
select j.job_id, j.version, j.topic, j.status, j.error, j.open, j.cancelled, j.created_at, j.updated_at, j.ended_at,
       j.expires_at, mesh.clock() as now,
       (select count(*) from mesh.worker_stream as w where w.generation = j.generation)
     + (select count(*) from mesh.engine_stream as m where m.generation = j.generation)
     + (select count(*) from mesh.job as c where c.parent_generation = j.generation and not c.severed and c.status > 0
           and not exists (select from mesh.activity as a
                            where a.generation = j.generation and a.activity_id = c.parent_activity
                              and a.dimension = c.parent_dimension and a.state = 'closed'))
       as number,
       (select json_agg(x) from (
           select w.activity_id, w.dimension, w.topic, w.workflow_name, w.created_at, w.visible_at,
                  w.reserved_by, w.attempt, w.delivery
             from mesh.worker_stream as w where w.generation = j.generation
            order by w.created_at limit $3) as x) as work,
       (select json_agg(x) from (
           select t.topic, t.workflow_name, array(
                   select distinct h.reserved_by from mesh.worker_stream as h
                    where h.app_id = j.app_id and h.topic = t.topic and h.visible_at > mesh.clock()
                      and h.workflow_name = t.workflow_name and h.reserved_by is not null limit 10) as holders,
                  array(
                   select distinct h.reserved_by from mesh.worker_stream as h
                    where h.app_id = j.app_id and h.topic = t.topic and h.visible_at > mesh.clock()
                      and h.workflow_name <> t.workflow_name and h.reserved_by is not null limit 10) as others
             from (select distinct w.topic, w.workflow_name from mesh.worker_stream as w
                    where w.generation = j.generation limit $3) as t) as x) as topics,
       (select json_agg(x) from (
           select m.message_id, m.kind, m.activity_id, m.dimension, m.created_at, m.visible_at, m.attempt
             from mesh.engine_stream as m where m.generation = j.generation
            order by m.created_at limit $3) as x) as messages,
       (select json_agg(x) from (
           select t.activity_id, t.dimension, t.due_at, t.set_at, t.attempt
             from mesh.timer as t where t.generation = j.generation
            order by t.due_at limit $3) as x) as timers,
       (select json_agg(x) from (
           select w.activity_id, w.dimension, w.topic, w.key, w.created_at
             from mesh.wait as w where w.generation = j.generation
            order by w.created_at limit $3) as x) as waits,
       (select json_agg(x) from (
           select c.job_id, c.status, c.parent_activity as activity_id, c.parent_dimension as dimension, c.created_at
             from mesh.job as c
            where c.parent_generation = j.generation and not c.severed and c.status > 0
              and not exists (select from mesh.activity as a
                               where a.generation = j.generation and a.activity_id = c.parent_activity
                                 and a.dimension = c.parent_dimension and a.state = 'closed')
            order by c.created_at limit $3) as x) as children,
       (select json_agg(x) from (
           select a.activity_id, a.dimension, a.type, a.state, a.started_at
             from mesh.activity as a where a.generation = j.generation and a.state <> 'closed'
            order by a.started_at limit $3) as x) as records,
       (select json_agg(x) from (
           select d.id, d.stream, d.topic, d.activity_id, d.dimension, d.reason, d.dead_at
             from mesh.dead_letter as d where d.generation = j.generation
            order by d.id limit $3) as x) as dead_letters,
       (select json_agg(x) from (
           select r.scope, r.topic, r.rate
             from mesh.throttle as r
            where r.app_id = j.app_id
              and (r.topic = '' or exists (
                  select from mesh.worker_stream as w where w.generation = j.generation and w.topic = r.topic))
            order by r.scope, r.topic limit $3) as x) as rates
  from mesh.job as j
 where j.app_id = $1 and j.job_id = any ($2)
   and (j.expires_at is null or j.expires_at > mesh.clock())
