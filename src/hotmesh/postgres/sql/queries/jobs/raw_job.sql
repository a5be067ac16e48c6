-- raw_job: a job ($2 of app $1) as it is stored, as JSON: its row, and the records of its activities.
select row_to_json(j) as job,
       (select json_agg(a order by a.started_at, a.dimension, a.activity_id)
          from mesh.activity as a where a.generation = j.generation) as records
  from mesh.job as j
 where j.app_id = $1 and j.job_id = $2
   and (j.expires_at is null or j.expires_at > mesh.clock())
