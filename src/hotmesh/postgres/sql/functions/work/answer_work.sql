-- answer_work: exchange held work for answers on the engine stream, for workers without an engine.
-- With p_tell, the engine that has the job in memory is told the whole answer where it listens, if it fits into a notification,
-- and has half a second for it; then, or if it cannot be told, the answer is for every engine.
-- Writes   deletes the worker_stream rows that p_member holds and inserts one answer for each, in one statement.
-- Notifies p_wake on the app's channel if there is an answer for every engine, else p_later: look in so many seconds.
-- Returns  for each element whether it was still held; the others' answers do not count.
create or replace function mesh.answer_work(
    p_app text, p_member text, p_generation uuid[], p_activity text[], p_dimension text[], p_status text[],
    p_code integer[], p_data text[], p_wake text, p_later text default '{"e":0.6}', p_tell boolean default true
) returns boolean[] language plpgsql as $$
declare
    v_now  constant timestamptz := mesh.clock();
    v_held boolean[];
    v_told boolean;
begin
    with answered as (
        delete from mesh.worker_stream as s
         using unnest(p_generation, p_activity, p_dimension) as w(generation, activity, dimension)
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
           and s.reserved_by = p_member
        returning s.job_id, s.generation, s.activity_id, s.dimension, s.reply_channel, s.created_at,
                  s.attempt
    ), answer as materialized (
        select a.*, w.status, w.code, w.data::json as data, i.id, n.notice
          from unnest(p_generation, p_activity, p_dimension, p_status, p_code, p_data)
               as w(generation, activity, dimension, status, code, data)
          join answered as a on a.generation = w.generation and a.activity_id = w.activity
               and a.dimension = w.dimension::integer[]
         cross join lateral (select 'answer:' || a.activity_id || ':' || a.dimension::text as id) as i
          left join lateral (
            select t.notice
              from (select json_build_object('a', json_build_object(
                               'job_id', a.job_id, 'generation', a.generation, 'kind', 'answer', 'message_id', i.id,
                               'activity_id', a.activity_id, 'dimension', a.dimension, 'status', w.status,
                               'code', w.code, 'data', w.data::json, 'work_attempt', a.attempt,
                               'at', a.created_at))::text as notice) as t
             -- What Postgres takes in a notification.
             where octet_length(t.notice) < 8000) as n
            on p_tell and a.reply_channel is not null and octet_length(w.data) < 7000
    ), sent as (
        insert into mesh.engine_stream (
            app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, started_at,
            work_attempt, visible_at, created_at)
        select p_app, a.job_id, a.generation, a.id, 'answer', a.activity_id, a.dimension, a.status, a.code, a.data,
               a.created_at, a.attempt,
               v_now + case when a.notice is null then interval '0 seconds' else interval '0.5 seconds' end, v_now
          from answer as a
        on conflict on constraint engine_stream_pk do nothing
    ), told as (
        select bool_and(a.notice is not null) is true as all_of_them,
               count(case when a.notice is not null then mesh.hint(a.reply_channel, a.notice)::text end)
          from answer as a
    ), held as (
        select array_agg(a.id is not null order by w.ordinal) as held
          from unnest(p_generation, p_activity, p_dimension) with ordinality
               as w(generation, activity, dimension, ordinal)
          left join answer as a on a.generation = w.generation and a.activity_id = w.activity
               and a.dimension = w.dimension::integer[]
    )
    select h.held, t.all_of_them into v_held, v_told from held as h cross join told as t;
    perform mesh.hint(mesh.channel(p_app), case when v_told then p_later else p_wake end);
    return v_held;
end
$$;
