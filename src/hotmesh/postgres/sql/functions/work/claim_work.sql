-- claim_work: reserve visible work of some topics, at most p_limits of each, oldest first.
-- Writes   reserved_by, reservation (if the answer gets lost, give_back_work takes it back by that),
--          visible_at = now + p_lease (when the reservation lapses), delivery + 1.
-- Returns  the reserved rows. Rows that another consumer holds or is claiming are skipped.
create or replace function mesh.claim_work(
    p_app text, p_member text, p_topics text[], p_limits integer[], p_lease double precision,
    p_reservation bigint default null
) returns setof mesh.worker_stream language sql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
    -- Nobody waits for the disk: what the answer changes is on it with that. If the server crashes before, the row is
    -- visible again, as if its lease had lapsed.
    select set_config('synchronous_commit', 'off', true);
    -- MATERIALIZED, or the planner may run it once per outer row and reserve more than was asked for.
    with candidate as materialized (
        select s.generation, s.activity_id, s.dimension
          from unnest(p_topics, p_limits) as t(topic, most)
         cross join lateral (
            select w.generation, w.activity_id, w.dimension
              from mesh.worker_stream as w
             where w.app_id = p_app and w.topic = t.topic and w.visible_at <= mesh.clock()
             order by w.visible_at
             limit t.most
               for update skip locked) as s
    )
    update mesh.worker_stream as w
       set reserved_by = p_member, reservation = p_reservation,
           visible_at = mesh.clock() + p_lease * interval '1 second', delivery = w.delivery + 1
      from candidate as c
     where w.generation = c.generation and w.activity_id = c.activity_id and w.dimension = c.dimension
    returning w.*
$$;
