-- list_dead_letters: what was given up in an app ($1), of one topic ($2) or all, of one job ($3) or all, the newest
-- first, at most $4.
select d.id, d.stream, d.topic, d.job_id, d.generation, d.activity_id, d.dimension, d.message, d.reason, d.dead_at
  from mesh.dead_letter as d
 where d.app_id = $1
   and ($2::text is null or d.topic = $2)
   and ($3::text is null or d.job_id = $3)
 order by d.dead_at desc, d.id desc
 limit $4
