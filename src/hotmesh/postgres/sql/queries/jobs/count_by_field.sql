-- count_by_field: the finished jobs of an app ($1) with one job key ($2), by two fields ($3, $4) of their data.
select j.data ->> $3 as one, j.data ->> $4 as other, count(*) as number
  from mesh.job as j
 where j.app_id = $1 and j.job_key = $2 and j.status = 0 and j.error is null
 group by 1, 2
