-- scrub_job: remove a job ($2 of app $1) with everything that belongs to it; whether there was one.
select mesh.scrub_job($1, $2)
