-- whole_job: a job ($2 of app $1) as its row has it; also one whose time is over, if $3.
select j.*
  from mesh.job as j
 where j.app_id = $1 and j.job_id = $2
   and ($3 or j.expires_at is null or j.expires_at > mesh.clock())
