-- search_fields: what a job ($2 of app $1) can be searched by, under the names with _ and -.
select j.search
  from mesh.job as j
 where j.app_id = $1 and j.job_id = $2
   and (j.expires_at is null or j.expires_at > mesh.clock())
