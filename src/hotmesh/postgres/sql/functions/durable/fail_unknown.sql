-- fail_unknown: answer the activities of a topic and name that have waited for p_grace seconds, and that nobody has, by p_error; a thousand at most.
-- Returns  how many they were.
create or replace function mesh.fail_unknown(p_app text, p_topic text, p_name text, p_grace double precision, p_error text)
returns integer language plpgsql
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_count integer;
begin
    with waiting as materialized (
        select w.ctid as place from mesh.worker_stream as w
         where length(coalesce(w.reserved_by, '')) = 0 and w.app_id = p_app and w.topic = p_topic
           and w.workflow_name = p_name and w.visible_at <= mesh.clock() - p_grace * interval '1 second'
         order by w.visible_at
         limit 1000
           for update skip locked
    ), failed as (
        delete from mesh.worker_stream as s using waiting as w where s.ctid = w.place
        returning s.job_id, s.generation, s.activity_id, s.dimension, s.created_at, s.attempt
    )
    insert into mesh.engine_stream (
        app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, started_at, work_attempt,
        visible_at, created_at)
    select p_app, f.job_id, f.generation, 'answer:' || f.activity_id || ':' || f.dimension::text, 'answer', f.activity_id,
           f.dimension, 'error', 598, p_error::json, f.created_at, f.attempt, mesh.clock(), mesh.clock()
      from failed as f
    on conflict on constraint engine_stream_pk do nothing;
    get diagnostics v_count = row_count;
    if v_count > 0 then
        perform mesh.wake(p_app, '{"e":1}');
    end if;
    return v_count;
end
$$;
