-- cancel_job: mark a job ($2 of app $1) as cancelled, for those who look at the mark; it runs on.
update mesh.job as j
   set cancelled = true
 where j.app_id = $1 and j.job_id = $2
   and (j.expires_at is null or j.expires_at > mesh.clock())
