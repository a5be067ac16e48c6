-- job_records: all that the activities of a job (generation $1) have left, in the order in which they began.
select a.* from mesh.activity as a where a.generation = $1 order by a.started_at, a.dimension, a.activity_id
