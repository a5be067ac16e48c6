-- forget_job: remove a job ($2 of app $1, of generation $3) that has ended, with everything that belongs to it, before
-- its time is over.
-- Locks    the job row.  Returns  how many there were.
with gone as (
    delete from mesh.job as j
     where j.app_id = $1 and j.job_id = $2 and j.generation = $3 and j.ended_at is not null
    returning j.generation
)
select count(*), mesh.forget_generations(coalesce(array_agg(g.generation), '{}')) from gone as g
