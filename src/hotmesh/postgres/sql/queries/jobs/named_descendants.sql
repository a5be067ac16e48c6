-- named_descendants: jobs below a job ($2 of app $1) whose id begins with -<its id>-, however deep.
with recursive below as (
    select c.job_id, c.generation from mesh.job as p
      join mesh.job as c on c.parent_generation = p.generation
     where p.app_id = $1 and p.job_id = $2 and starts_with(c.job_id, '-' || p.job_id || '-')
     union
    select c.job_id, c.generation from below as b
      join mesh.job as c on c.parent_generation = b.generation
     where starts_with(c.job_id, '-' || $2 || '-')
)
select b.job_id from below as b order by b.job_id
