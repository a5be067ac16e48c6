-- job_fate: what has become of a job ($2 of app $1), whose row may be there still although its time is over.
select mesh.job_state(j.status, j.error, j.queue) as state, j.ended_at, j.expires_at, j.expires_at <= mesh.clock() as expired
  from mesh.job as j
 where j.app_id = $1 and j.job_id = $2
