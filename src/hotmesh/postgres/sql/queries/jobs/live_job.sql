-- live_job: the row of a job ($2 of app $1), unless its time is over.
select * from mesh.job
 where app_id = $1 and job_id = $2 and (expires_at is null or expires_at > mesh.clock())
