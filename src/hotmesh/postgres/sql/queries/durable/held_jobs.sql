-- held_jobs: up to $3 jobs that the tenures $1 hold, not changed for $2 seconds.
select j.job_id, j.generation from mesh.job as j
 where j.tenure = any ($1) and j.held and j.status > 0 and j.updated_at < mesh.clock() - $2 * interval '1 second'
 order by j.updated_at limit $3
