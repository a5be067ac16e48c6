-- extend_work: prolong reservations that p_member still holds, to now + p_lease.
-- Returns  for each element whether it is still held.
create or replace function mesh.extend_work(
    p_member text, p_generation uuid[], p_activity text[], p_dimension text[], p_lease double precision
) returns boolean[] language sql as $$
    with held as (
        update mesh.worker_stream as s
           set visible_at = mesh.clock() + p_lease * interval '1 second'
          from unnest(p_generation, p_activity, p_dimension) as w(generation, activity, dimension)
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
           and s.reserved_by = p_member
        returning s.generation, s.activity_id, s.dimension
    )
    select array_agg(h.generation is not null order by w.ordinal)
      from unnest(p_generation, p_activity, p_dimension) with ordinality as w(generation, activity, dimension, ordinal)
      left join held as h on h.generation = w.generation and h.activity_id = w.activity
           and h.dimension = w.dimension::integer[]
$$;
