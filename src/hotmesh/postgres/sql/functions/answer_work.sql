-- answer_work: exchange held work for answers on the engine stream, for workers without an engine.
-- Writes   deletes the worker_stream rows that p_member holds and inserts one answer for each, in one statement.
-- Returns  for each element whether it was still held; the others' answers do not count.
create or replace function mesh.answer_work(
    p_app text, p_member text, p_generation uuid[], p_activity text[], p_dimension text[], p_status text[],
    p_code integer[], p_data text[], p_wake text
) returns boolean[] language plpgsql as $$
declare
    v_held boolean[];
begin
    with answered as (
        delete from mesh.worker_stream as s
         using unnest(p_generation, p_activity, p_dimension) as w(generation, activity, dimension)
         where s.generation = w.generation and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
           and s.reserved_by = p_member
        returning s.*
    ), sent as (
        insert into mesh.engine_stream (
            app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, started_at,
            visible_at, created_at)
        select p_app, a.job_id, a.generation, 'answer:' || a.activity_id || ':' || a.dimension::text, 'answer',
               a.activity_id, a.dimension, w.status, w.code, w.data::json, a.created_at, mesh.clock(), mesh.clock()
          from unnest(p_generation, p_activity, p_dimension, p_status, p_code, p_data)
               as w(generation, activity, dimension, status, code, data)
          join answered as a on a.generation = w.generation and a.activity_id = w.activity
               and a.dimension = w.dimension::integer[]
        on conflict on constraint engine_stream_pk do nothing
    )
    select array_agg(a.generation is not null order by w.ordinal) into v_held
      from unnest(p_generation, p_activity, p_dimension) with ordinality as w(generation, activity, dimension, ordinal)
      left join answered as a on a.generation = w.generation and a.activity_id = w.activity
           and a.dimension = w.dimension::integer[];
    perform pg_notify(mesh.channel(p_app), p_wake);
    return v_held;
end
$$;
