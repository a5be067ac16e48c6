-- activity_options: the data of activity $1 $2 $3, as it was asked for, if its attempt $4 is still to end.
select s.data from mesh.worker_stream as s
 where s.generation = $1 and s.activity_id = $2 and s.dimension = $3::text::integer[] and s.attempt = $4
