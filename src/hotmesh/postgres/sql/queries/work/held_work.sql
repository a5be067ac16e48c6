-- held_work: of pieces of work ($2 generations, $3 activities, $4 addresses), in their order, whether member $1 holds them by
-- these reservations ($5); null: they are gone.
select (select coalesce(s.reserved_by = $1 and s.reservation = w.reservation, false)
          from mesh.worker_stream as s
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity
           and s.dimension = w.dimension::integer[]) as held
  from unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[]) with ordinality
       as w(generation, activity, dimension, reservation, ordinal)
 order by w.ordinal
