-- written_steps: what stands in the rows of jobs ($2 of app $1), to tell whether a step's commit was carried out.
select job_id, generation, seq, token from mesh.job where app_id = $1 and job_id = any($2)
