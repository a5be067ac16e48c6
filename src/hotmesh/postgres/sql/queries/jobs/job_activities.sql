-- job_activities: what the activities of a job (generation $1) have left, in the order in which they began; of a durable function
-- its operations, as far as they have an outcome, in the order in which that was told.
select a.activity_id, a.dimension, a.type, a.state, a.code, a.output, a.hook, a.error, a.attempt, a.started_at, a.ended_at,
       null::bigint as seq
  from mesh.activity as a
 where a.generation = $1
 union all
select o.name, array[o.strand, o.position], o.kind, o.status, null, o.result, null, o.error, o.attempt - 1,
       coalesce(o.started_at, o.ended_at), o.ended_at, o.seq
  from mesh.operation as o
 where o.generation = $1
 order by 12, 10, 11, 2, 1
