-- commit_extras: the part of commit_steps that few steps need; called by it, in its transaction.
-- p_extras  {"escalations": […], "ends": […], "measures": […], "broadcasts": […], "searches": […], "starts": […], "cancels": […], "pauses": […]};
--           each object names its step.
-- NUL characters are hidden in it (hide_nul).
-- Writes    mesh.escalation, mesh.measure, mesh.broadcast, and, of jobs that commit_steps has changed, search fields and
--           what is settled when a job that was created in a caller's transaction is started; nothing of the refused
--           steps. Activities that are asked to end (cancels): what nobody has is answered by their error at once; the
--           others are marked, for who has them. Activities of a workflow that is paused or resumed (pauses): what nobody has is put
--           off by a thousand years, or is there again.
-- Returns   whether there is a broadcast to carry out, or an answer.
create or replace function mesh.commit_extras(p_app text, p_extras json, p_refused integer[], p_now timestamptz)
returns boolean language plpgsql as $$
declare
    v_end record;
    v_answered boolean := false;
    v_topics text[];
begin
    -- Before what begins: a hook that is entered again in the same step has the same key. One by one, and not by their
    -- places: people change these rows, too, whoever holds the job.
    for v_end in
        select mesh.escalation_id(x.generation, x.activity_id, x.dimension) as id, x.status, x.payload
          from json_to_recordset(p_extras -> 'ends')
               as x(step integer, generation uuid, activity_id text, dimension text, status text, payload jsonb)
         where not x.step = any (p_refused)
         order by 1
    loop
        update mesh.escalation as e
           set status = v_end.status, updated_at = p_now,
               resolved_at = case when v_end.status = 'resolved' then p_now end,
               resolver_payload = case when v_end.status = 'resolved' then v_end.payload end
         where e.id = v_end.id and e.status = 'pending';
    end loop;

    insert into mesh.escalation (
        id, namespace, app_id, signal_key, topic, workflow_id, task_queue, workflow_type, type, subtype, entity,
        description, role, priority, envelope, metadata, origin_id, parent_id, initiated_by, trace_id, span_id,
        expires_at, created_at, updated_at)
    select mesh.escalation_id(x.generation, x.activity_id, x.dimension), mesh.namespace(), p_app, f.signal_key, f.topic,
           x.job_id, f.task_queue, f.workflow_type, f.type, f.subtype, f.entity, f.description, f.role,
           coalesce(f.priority, 5), f.envelope, f.metadata, f.origin_id, f.parent_id, f.initiated_by, f.trace_id,
           f.span_id, f.expires_at, p_now, p_now
      from json_to_recordset(coalesce(p_extras -> 'escalations', '[]'))
           as x(step integer, job_id text, generation uuid, activity_id text, dimension text, fields json)
     cross join lateral json_to_record(x.fields)
           as f(signal_key text, topic text, task_queue text, workflow_type text, type text, subtype text, entity text,
                description text, role text, priority integer, envelope jsonb, metadata jsonb, origin_id text,
                parent_id text, initiated_by text, trace_id text, span_id text, expires_at timestamptz)
     where not x.step = any (p_refused)
    -- A live item has this key already: two jobs wait under one key, and one work item stands for both.
    on conflict do nothing;

    -- The rows of both are locked already. By their places: a join might begin with all jobs of the app.
    update mesh.job as j
       set search = (coalesce(j.search, '{}')::jsonb || x.search)::json
      from (select x.search, j.place
              from json_to_recordset(coalesce(p_extras -> 'searches', '[]'))
                   as x(step integer, job_id text, generation uuid, search jsonb)
             cross join lateral (
                select j.ctid as place from mesh.job as j
                 where j.app_id = p_app and j.job_id = x.job_id and j.generation = x.generation
                   for update) as j
             where not x.step = any (p_refused)) as x
     where j.ctid = x.place;

    update mesh.job as j
       set version = x.version, job_key = x.job_key, entity = x.entity, origin_id = x.origin_id, parent_id = x.parent_id,
           input = coalesce(mesh.show_nul(x.input), j.input)
      from (select x.*, j.place
              from json_to_recordset(coalesce(p_extras -> 'starts', '[]'))
                   as x(step integer, job_id text, generation uuid, version text, job_key text, entity text,
                        origin_id text, parent_id text, input json)
             cross join lateral (
                select j.ctid as place from mesh.job as j
                 where j.app_id = p_app and j.job_id = x.job_id and j.generation = x.generation
                   for update) as j
             where not x.step = any (p_refused)) as x
     where j.ctid = x.place;

    insert into mesh.measure (app_id, topic, job_key, slice, measure, facet, value, number, job_id, generation, created_at)
    select p_app, x.topic, x.key, x.slice, x.measure, x.facet, x.value, x.number, x.job_id, x.generation, p_now
      from json_to_recordset(coalesce(p_extras -> 'measures', '[]'))
           as x(step integer, topic text, key text, slice text, measure text, facet text, value text,
                number double precision, job_id text, generation uuid)
     where not x.step = any (p_refused);

    insert into mesh.broadcast (app_id, topic, facet, query, data, created_at)
    select p_app, x.topic, x.facet, mesh.show_nul(x.query), mesh.show_nul(x.data), p_now
      from json_to_recordset(coalesce(p_extras -> 'broadcasts', '[]'))
           as x(step integer, topic text, facet text, query json, data json)
     where not x.step = any (p_refused);
    v_answered := found;
    if p_extras -> 'pauses' is not null then
        with changed as (
            update mesh.worker_stream as s
               set paused = nullif(x.paused, false),
                   visible_at = case when s.reserved_by is not null then s.visible_at
                                     when x.paused and s.paused is null then s.visible_at + interval '1000 years'
                                     when not x.paused and s.paused then greatest(s.visible_at - interval '1000 years', p_now)
                                     else s.visible_at end
              from json_to_recordset(p_extras -> 'pauses') as x(step integer, generation uuid, paused boolean)
             where s.generation = any (array[x.generation]) and s.activity_id <> '' and not x.step = any (p_refused)
            returning s.topic, x.paused
        )
        select array_agg(distinct c.topic) into v_topics from changed as c where not c.paused;
        if v_topics is not null then
            perform mesh.wake(p_app, json_build_object('w', v_topics)::text);
        end if;
    end if;
    if p_extras -> 'cancels' is null then
        return v_answered;
    end if;
    with wanted as materialized (
        select x.generation, x.activity_id, x.dimension::integer[] as dimension, x.error
          from json_to_recordset(p_extras -> 'cancels')
               as x(step integer, generation uuid, activity_id text, dimension text, error json)
         where not x.step = any (p_refused)
    ), ended as (
        delete from mesh.worker_stream as s
         using wanted as w
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity_id and s.dimension = w.dimension
           and s.reserved_by is null
        returning s.job_id, s.generation, s.activity_id, s.dimension, s.created_at, s.attempt, w.error
    )
    insert into mesh.engine_stream (
        app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, started_at, work_attempt,
        visible_at, created_at)
    select p_app, e.job_id, e.generation, 'answer:' || e.activity_id || ':' || e.dimension::text, 'answer', e.activity_id,
           e.dimension, 'error', 598, e.error, e.created_at, greatest(e.attempt - 1, 0), p_now, p_now
      from ended as e
    on conflict on constraint engine_stream_pk do nothing;
    v_answered := v_answered or found;
    update mesh.worker_stream as s
       set cancelled = true
      from json_to_recordset(p_extras -> 'cancels')
           as w(step integer, generation uuid, activity_id text, dimension text)
     where s.generation = any (array[w.generation]) and s.activity_id = w.activity_id
       and s.dimension = w.dimension::integer[] and not w.step = any (p_refused);
    return v_answered;
end
$$;
