-- search_fields: what a job ($2 of app $1) can be searched by, as its caller gave it; and the members of its data that
-- its graph wrote for the same purpose.
select j.search, j.data
  from mesh.job as j
 where j.app_id = $1 and j.job_id = $2
   and (j.expires_at is null or j.expires_at > mesh.clock())
