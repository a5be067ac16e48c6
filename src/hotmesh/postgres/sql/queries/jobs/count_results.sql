-- count_results: the workflows of an app ($1) about one entity ($2) that have completed, by two fields ($3, $4) of what they returned.
select j.data -> 'response' ->> $3 as one, j.data -> 'response' ->> $4 as other, count(*) as number
  from mesh.job as j
 where j.app_id = $1 and j.entity = $2 and j.status = 0 and j.error is null
 group by 1, 2
