-- list_jobs: the newest jobs, of one app ($1) or all (null), in one state ($2) or all, on one topic ($3) or all,
-- at most $4, of those created within the last $5 seconds; with $6 also those whose time is over, while their rows are there. The bound is what finds them: job_created knows which parts
-- of the table are that young, and only the rows of those are sorted.
select j.app_id, j.job_id, j.generation, j.version, j.topic, j.seq, j.status, j.error, j.data, j.input,
       j.created_at, j.updated_at, j.ended_at, mesh.job_state(j.status, j.error, j.queue) as state,
       coalesce(j.expires_at <= mesh.clock(), false) as expired
  from mesh.job as j
 where j.created_at >= mesh.clock() - $5 * interval '1 second'
   and ($1::text is null or j.app_id = $1)
   and ($2::text is null or mesh.job_state(j.status, j.error, j.queue) = $2)
   and ($3::text is null or j.topic = $3)
   and ($6 or j.expires_at is null or j.expires_at > mesh.clock())
 order by j.created_at desc, j.job_id
 limit $4
