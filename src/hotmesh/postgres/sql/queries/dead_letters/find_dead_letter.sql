-- find_dead_letter: one dead letter ($2) of an app ($1), and the state of the job that it is about.
select d.stream, d.job_id, d.generation, d.activity_id, d.dimension, j.seq, j.status
  from mesh.dead_letter as d
  left join mesh.job as j on j.app_id = d.app_id and j.job_id = d.job_id and j.generation = d.generation
 where d.app_id = $1 and d.id = $2
