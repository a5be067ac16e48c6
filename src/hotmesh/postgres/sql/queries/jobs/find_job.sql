-- find_job: the jobs of an id ($1), one for each app that has one; of one app ($2) only, if it is named.
select j.app_id, j.job_id, j.generation, j.version, j.topic, j.seq, j.status, j.error, j.data, j.input,
       j.created_at, j.updated_at, j.ended_at,
       mesh.job_state(j.status, j.error, j.queue) as state, false as expired
  from mesh.app as a
  join mesh.job as j on j.app_id = a.app_id and j.job_id = $1  -- one probe of the key for each app
 where ($2::text is null or a.app_id = $2)
   and (j.expires_at is null or j.expires_at > mesh.clock())
 order by j.app_id
