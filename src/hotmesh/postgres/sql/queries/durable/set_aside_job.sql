-- set_aside_job: let the id $2 of app $1 be free, of a durable function that has ended ($3: and failed); it is kept under
-- its id and its generation.
update mesh.job as j set job_id = left(j.job_id, 470) || '~' || j.generation
 where j.app_id = $1 and j.job_id = $2 and j.queue is not null and j.ended_at is not null and (not $3 or j.status < 0)
returning j.generation
