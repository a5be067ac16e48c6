-- measures: what was counted about the jobs of a graph (topic $2 of app $1) under a key ($3), in slices of time ($4; null:
-- in all).
select slice, measure, facet, value, number, job_id, generation
  from mesh.measure
 where app_id = $1 and topic = $2 and job_key = $3 and ($4::text[] is null or slice = any($4))
 order by created_at, job_id
