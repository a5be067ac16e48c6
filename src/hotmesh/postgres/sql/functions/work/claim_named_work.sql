-- claim_named_work: claim_work for topics whose workers take work by its workflow name.
-- One element per worker: p_names is the name it takes; null: any name but p_others, which others here take.
-- Writes   as claim_work.  Returns  the reserved rows. What nobody here takes stays as it is, for whoever does.
create or replace function mesh.claim_named_work(
    p_app text, p_member text, p_topics text[], p_names text[], p_others text[], p_limits integer[],
    p_lease double precision, p_reservation bigint default null
) returns setof mesh.worker_stream language sql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
    select set_config('synchronous_commit', 'off', true);  -- as in claim_work
    with wanted as materialized (
        select t.topic, t.name, t.others::text[] as others, t.most
          from unnest(p_topics, p_names, p_others, p_limits) as t(topic, name, others, most)
    ), by_name as materialized (
        select s.generation, s.activity_id, s.dimension
          from wanted as t
         cross join lateral (
            -- The name is a condition on the index: a long queue of other names is not read row by row.
            select w.generation, w.activity_id, w.dimension
              from mesh.worker_stream as w
             where w.app_id = p_app and w.topic = t.topic and w.visible_at <= mesh.clock() and w.workflow_name = t.name
             order by w.visible_at
             limit t.most
               for update skip locked) as s
         where t.name is not null
    ), by_topic as materialized (
        select s.generation, s.activity_id, s.dimension
          from wanted as t
         cross join lateral (
            select w.generation, w.activity_id, w.dimension
              from mesh.worker_stream as w
             where w.app_id = p_app and w.topic = t.topic and w.visible_at <= mesh.clock()
               and w.workflow_name <> all (t.others)
             order by w.visible_at
             limit t.most
               for update skip locked) as s
         where t.name is null
    )
    update mesh.worker_stream as w
       set reserved_by = p_member, reservation = p_reservation,
           visible_at = mesh.clock() + p_lease * interval '1 second', delivery = w.delivery + 1
      from (select * from by_name union all select * from by_topic) as c
     where w.generation = c.generation and w.activity_id = c.activity_id and w.dimension = c.dimension
    returning w.*
$$;
