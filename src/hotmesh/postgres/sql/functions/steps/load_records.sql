-- load_records: what a step at an address may read of some activities of a job, however long its history is.
-- One element per (generation, activity, dimension). For each prefix of the address: the record there, and the last one
-- below it; the last one of all; and those below the address.
-- Returns  the records, each once; a bounded number of index probes per element.
create or replace function mesh.load_records(
    p_generation uuid[], p_activity text[], p_dimension text[]
) returns setof mesh.activity language sql stable
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
    with wanted as materialized (
        select w.generation, w.activity, w.dimension::integer[] as dimension
          from unnest(p_generation, p_activity, p_dimension) as w(generation, activity, dimension)
    ), found as (
        select f.*
          from wanted as w
         cross join lateral generate_series(1, cardinality(w.dimension)) as depth
         cross join lateral (
            select a.* from mesh.activity as a
             where a.generation = w.generation and a.activity_id = w.activity
               and a.dimension >= w.dimension[1:depth]
               and a.dimension < w.dimension[1:depth - 1] || (w.dimension[depth] + 1)
             order by a.dimension desc limit 1) as f
        union all
        select f.*
          from wanted as w
         cross join lateral generate_series(1, cardinality(w.dimension)) as depth
         cross join lateral (
            -- With its limit, or the planner may join the other way round: through all records of the activity.
            select a.* from mesh.activity as a
             where a.generation = w.generation and a.activity_id = w.activity and a.dimension = w.dimension[1:depth]
             limit 1) as f
        union all
        select f.*
          from wanted as w
         cross join lateral (
            select a.* from mesh.activity as a
             where a.generation = w.generation and a.activity_id = w.activity and a.dimension > w.dimension
               and a.dimension < w.dimension[1:cardinality(w.dimension) - 1]
                                 || (w.dimension[cardinality(w.dimension)] + 1)
             order by a.dimension desc limit 100) as f
        union all
        select f.*
          from wanted as w
         cross join lateral (
            select a.* from mesh.activity as a
             where a.generation = w.generation and a.activity_id = w.activity
             order by a.dimension desc limit 1) as f
    )
    select distinct on (f.generation, f.activity_id, f.dimension) f.* from found as f
     order by f.generation, f.activity_id, f.dimension
$$;
