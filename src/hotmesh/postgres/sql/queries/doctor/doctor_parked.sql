-- doctor_parked: durable functions of an app ($1) that are parked, the oldest first; at most $2.
-- `open` is compact JSON, in which no text can hold a quote that is not escaped.
select j.job_id, j.topic
  from mesh.job as j
 where j.app_id = $1 and j.status > 0 and j.queue is not null and strpos(j.open::text, '"parked":{') > 0
 order by j.created_at limit $2
