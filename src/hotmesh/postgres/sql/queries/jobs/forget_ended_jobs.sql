-- forget_ended_jobs: remove the jobs of an app ($1) that have ended, with everything that belongs to them; but for
-- those whose job key has jobs that still run.
-- Locks    job rows, in id order.  Returns  how many there were.
with ended as materialized (
    select j.job_id, j.generation from mesh.job as j
     where j.app_id = $1 and j.ended_at is not null
       and (j.job_key is null or j.job_key not in (
            select r.job_key from mesh.job as r where r.app_id = $1 and r.status > 0 and r.job_key is not null))
     order by j.job_id
       for update
), gone as (
    delete from mesh.job as j using ended as e where j.app_id = $1 and j.job_id = e.job_id
    returning j.generation
)
select count(*), mesh.forget_generations(coalesce(array_agg(g.generation), '{}')) from gone as g
