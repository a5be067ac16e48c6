-- history: what is recorded of durable functions, closed and open, one page of it, in the order of its key.
-- p_strand, p_position: those after this one of the first generation (others follow in their order); for the first page null.
-- What is open is a row of its own kind, a timer, a wait, work, a message for one of these; it comes with the first page. A step that runs in a process has none.
-- Reads    mesh.operation, mesh.timer, mesh.wait, mesh.worker_stream, mesh.engine_stream, by their keys.
-- Returns  the rows. status `open`: it has no outcome yet.
create or replace function mesh.history(
    p_generations uuid[], p_after uuid, p_strand integer, p_position integer, p_most integer
) returns table (
    generation uuid, strand integer, "position" integer, seq bigint, kind text, name text, status text, result json,
    error json, attempt integer, started_at timestamptz, ended_at timestamptz
) language plpgsql stable rows 100
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
begin
    return query
    select o.generation, o.strand, o.position, o.seq, o.kind, o.name, o.status, o.result, o.error, o.attempt,
           o.started_at, o.ended_at
      from mesh.operation as o
     where o.generation = any (p_generations)
       and (p_after is null or (o.generation, o.strand, o.position) > (p_after, p_strand, p_position))
     order by o.generation, o.strand, o.position limit p_most;
    if p_after is null then
        return query
        select t.generation, t.dimension[1], t.dimension[2], null::bigint, 'sleep'::text, t.activity_id, 'open'::text,
               null::json, null::json, null::integer, t.set_at, null::timestamptz
          from mesh.timer as t
         where t.generation = any (p_generations) and cardinality(t.dimension) = 2
         union all
        select w.generation, w.dimension[1], w.dimension[2], null, 'wait', w.activity_id, 'open', null, null, null,
               w.created_at, null
          from mesh.wait as w
         where w.generation = any (p_generations) and cardinality(w.dimension) = 2
         union all
        -- A wait that a signal was handed over to, an activity that was answered: the message stands for it, until that is recorded.
        select m.generation, m.dimension[1], m.dimension[2], null,
               case when m.kind = 'signal' then 'wait' else 'activity' end, m.activity_id, 'open', null, null, null,
               m.created_at, null
          from mesh.engine_stream as m
         where m.generation = any (p_generations) and m.kind in ('signal', 'answer') and cardinality(m.dimension) = 2
         union all
        select s.generation, s.dimension[1], s.dimension[2], null, 'activity', s.activity_id, 'open', null, null, null,
               s.created_at, null
          from mesh.worker_stream as s
         where s.generation = any (p_generations) and cardinality(s.dimension) = 2;
    end if;
end
$$;
