-- claim_work: reserve visible work of some topics, at most p_limits of each: first that of which a lease has lapsed, then the oldest.
-- One element per worker: p_names is the workflow name that it takes; null: any but p_others, which others here take.
-- Without these two, any name. What nobody here takes stays as it is, for whoever does.
-- p_last: the number of the delivery that is the last one. Sooner than that, work runs beside other work; from then on the caller runs
-- it alone (set_beside), or gives it up if it was alone the last time.
-- p_since: only what became visible then or later; null: all. See runtime/frontier.py: while a snapshot is held, what was deleted stays in the
-- index, and would be read by every claim.
-- Writes   reserved_by, reservation (if the answer gets lost, give_back_work takes it back by that),
--          visible_at = now + p_lease (when the reservation lapses), delivery + 1; beside, before p_last.
-- Returns  the reserved rows. Rows that another consumer holds or is claiming are skipped.
create or replace function mesh.claim_work(
    p_app text, p_member text, p_topics text[], p_limits integer[], p_lease double precision,
    p_reservation bigint default null, p_names text[] default null, p_others text[] default null,
    p_last integer default null, p_since timestamptz[] default null
) returns setof mesh.worker_stream language plpgsql
  set plan_cache_mode = force_generic_plan
  -- Without bitmaps: where the planner believes that few rows have another name, it would sort the whole queue.
  set enable_bitmapscan = off
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
    -- Nobody waits for the disk: what the answer changes is on it with that. If the server crashes before, the row is
    -- visible again, as if its lease had lapsed.
    perform set_config('synchronous_commit', 'off', true);
    -- MATERIALIZED, or the planner may run it once per outer row and reserve more than was asked for.
    return query with candidate as materialized (
        select s.place
          from unnest(p_topics, p_limits, p_names, p_others, p_since) as t(topic, most, name, others, since)
         cross join lateral (
            -- Each part has an index of its own (worker_stream_held, _claim, _named), and is begun when those before it were not enough.
            select * from (
                select w.ctid as place
                  from mesh.worker_stream as w
                 where coalesce(w.reserved_by, '') <> '' and w.app_id = p_app and w.topic = t.topic and w.visible_at <= mesh.clock()
                   and w.visible_at >= coalesce(t.since, '-infinity')
                   and (t.name is null or w.workflow_name = t.name)
                   and (t.name is not null or t.others is null or w.workflow_name <> all (t.others::text[]))
                 order by w.visible_at
                 limit t.most
                   for update skip locked) as lapsed
             union all
            -- Whether there is a name is asked inside, so that the other part is not even begun.
            select * from (
                select w.ctid as place
                  from mesh.worker_stream as w
                 where t.name is null and coalesce(w.reserved_by, '') = '' and w.app_id = p_app and w.topic = t.topic
                   and w.visible_at <= mesh.clock() and w.visible_at >= coalesce(t.since, '-infinity')
                   and (t.others is null or w.workflow_name <> all (t.others::text[]))
                 order by w.visible_at
                 limit t.most
                   for update skip locked) as any_name
             union all
            select * from (
                select w.ctid as place
                  from mesh.worker_stream as w
                 where t.name is not null and length(coalesce(w.reserved_by, '')) = 0 and w.app_id = p_app and w.topic = t.topic
                   and w.visible_at <= mesh.clock() and w.visible_at >= coalesce(t.since, '-infinity')
                   and w.workflow_name = t.name
                 order by w.visible_at
                 limit t.most
                   for update skip locked) as one_name
             limit t.most) as s
    )
    update mesh.worker_stream as w
       set reserved_by = p_member, reservation = p_reservation,
           visible_at = mesh.clock() + p_lease * interval '1 second', delivery = w.delivery + 1,
           beside = case when w.delivery < p_last then true else w.beside end
      from candidate as c
     where w.ctid = c.place
    returning w.*;
end
$$;
