-- job_open: what a job (generation $1) waits for, one row for each obligation that a row outside the job stands for.
-- `until` is when something happens by itself: a lease lapses, a retry or a timer is due.
select 'work' as kind, w.activity_id, w.dimension, w.topic as detail, w.created_at as since, w.visible_at as until,
       w.reserved_by as held_by, w.attempt
  from mesh.worker_stream as w where w.generation = $1
 union all
select 'message', m.activity_id, m.dimension, m.kind, m.created_at, m.visible_at, null, m.attempt
  from mesh.engine_stream as m where m.generation = $1
 union all
select 'timer', t.activity_id, t.dimension, null, t.set_at, t.due_at, null, t.attempt
  from mesh.timer as t where t.generation = $1
 union all
select 'signal', h.activity_id, h.dimension, h.topic || ' ' || h.key, h.created_at, null, null, 0
  from mesh.wait as h where h.generation = $1
 union all
select 'child', c.parent_activity, c.parent_dimension, c.job_id, c.created_at, null, null, 0
  from mesh.job as c where c.parent_generation = $1 and not c.severed and c.status > 0
   -- One that has answered (early by `persist`, or with an error) and goes on keeps nobody.
   and not exists (select from mesh.activity as a
                    where a.generation = $1 and a.activity_id = c.parent_activity
                      and a.dimension = c.parent_dimension and a.state = 'closed')
 order by since, activity_id
