-- live_job_status: the status of a job ($2 of app $1), unless its time is over; $3: of this generation only, null: of any.
select status from mesh.job
 where app_id = $1 and job_id = $2 and ($3::uuid is null or generation = $3)
   and (expires_at is null or expires_at > mesh.clock())
