-- job_activities: what the activities of a job (generation $1) have left, in the order in which they began.
select a.activity_id, a.dimension, a.type, a.state, a.code, a.output, a.hook, a.error, a.attempt, a.started_at, a.ended_at
  from mesh.activity as a
 where a.generation = $1
 order by a.started_at, a.ended_at, a.dimension, a.activity_id
