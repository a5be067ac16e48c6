-- extend_work: prolong reservations that p_member still holds, to now + p_lease. p_details: what heartbeats have said since, or null.
-- Returns  for each element whether it is still held; null: it is, and has been asked to end.
create or replace function mesh.extend_work(
    p_member text, p_generation uuid[], p_activity text[], p_dimension text[], p_lease double precision,
    p_details text[] default null
) returns boolean[] language sql as $$
    with held as (
        update mesh.worker_stream as s
           set visible_at = mesh.clock() + p_lease * interval '1 second', heartbeat = coalesce(w.details::json, s.heartbeat)
          from unnest(p_generation, p_activity, p_dimension, p_details) as w(generation, activity, dimension, details)
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
           and s.reserved_by = p_member
        returning s.generation, s.activity_id, s.dimension, s.cancelled
    )
    select array_agg(case when h.cancelled then null else h.generation is not null end order by w.ordinal)
      from unnest(p_generation, p_activity, p_dimension) with ordinality as w(generation, activity, dimension, ordinal)
      left join held as h on h.generation = w.generation and h.activity_id = w.activity
           and h.dimension = w.dimension::integer[]
$$;
