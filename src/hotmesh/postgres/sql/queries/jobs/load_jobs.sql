-- load_jobs: the rows of jobs ($2 of app $1).
select * from mesh.job where app_id = $1 and job_id = any($2)
