-- reserved_work: of pieces of work ($1 generations, $2 activities, $3 addresses), those that member $4 holds by reservation $5.
select s.generation, s.activity_id, s.dimension
  from unnest($1::uuid[], $2::text[], $3::text[]) as w(generation, activity, dimension)
  join mesh.worker_stream as s
    on s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
 where s.reserved_by = $4 and s.reservation = $5
