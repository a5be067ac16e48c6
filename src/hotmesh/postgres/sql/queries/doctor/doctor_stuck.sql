-- doctor_stuck: jobs of an app ($1) that run, and for which nothing is waiting that could let them go on; at most $2.
-- Of a durable function whose steps run in a process its tenure stands; one that is paused waits for whoever resumes it.
select j.job_id, j.topic, j.updated_at
  from mesh.job as j
 where j.app_id = $1 and j.status > 0 and j.updated_at < mesh.clock() - interval '1 minute'
   and not exists (select from mesh.obligations(j.generation) as o)
   and not exists (select from mesh.activity as a where a.generation = j.generation and a.state = 'pending')
   and not (j.held and exists (select from mesh.tenure as t where t.tenure = j.tenure))
   and (j.queue is null or strpos(coalesce(j.open::text, ''), '"paused":{') = 0)
 order by j.updated_at limit $2
