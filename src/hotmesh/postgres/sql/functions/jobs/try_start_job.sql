-- try_start_job: create a job in the caller's transaction; an engine starts it once that has committed.
-- The row takes the id, with status 1; a message `start` for the engines and a hint go with it. Nobody sees any of it
-- before the commit, and nothing is left of it after a rollback. The step that starts the job consumes the message.
-- p_job_id  null: an invented one.  p_data  JSON text, encoded by the codec of the instances if they have one.
-- p_epoch   the caller has decided on topic and id by the definitions of this epoch. Null: the active version is looked
--           into here; an id that its graph computes from data is then for the caller to give.
-- Locks     the id, by its row, until the caller's transaction ends: who wants the same id waits for that.
-- Returns   outcome; nothing is written unless it is `started`, and nothing is raised, so that the transaction goes on:
--             started    job_id and generation are those of the new job
--             duplicate  a live job has the id
--             stale      the definitions are of another epoch by now
--             app        nothing is active under the app id
--             topic      no graph of the active version subscribes to the topic, or it is for await activities only (`.x`)
--             id         the graph computes its ids, which only an engine can do: give one
create or replace function mesh.try_start_job(
    p_app text, p_topic text, p_data text, p_job_id text, p_entity text, p_search text, p_pending double precision,
    p_trace_id text, p_span_id text, p_epoch bigint,
    out outcome text, out job_id text, out generation uuid, out version text
) language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_now        constant timestamptz := mesh.clock();
    v_chance     constant text := replace(gen_random_uuid()::text, '-', '');
    -- A UUID of version 7, as everywhere: the rows of one time lie together in the indexes.
    v_generation constant uuid := (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
                                   || '7' || substr(v_chance, 14, 19))::uuid;
    v_job_id     constant text := coalesce(p_job_id, 'H' || left(translate(
                     encode(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), 'base64'), '+/=', '-_'), 22));
    v_active     text;
    v_epoch      bigint;
    v_named      boolean;
begin
    select a.active_version, a.epoch into v_active, v_epoch from mesh.app as a where a.app_id = p_app;
    version := v_active;
    if v_active is null then
        outcome := 'app';
        return;
    end if;
    if p_epoch is null then
        select (t.activity #>> '{stats,id}') is not null into v_named
          from mesh.app_version as v
         cross join lateral json_array_elements(v.graph #> '{document,app,graphs}') as g(graph)
         cross join lateral json_each(g.graph -> 'activities') as t(name, activity)
         where v.app_id = p_app and v.version = v_active and g.graph ->> 'subscribes' = p_topic
           and p_topic not like '.%' and t.activity ->> 'type' = 'trigger';
        if v_named is null then
            outcome := 'topic';
            return;
        end if;
        if v_named and p_job_id is null then
            outcome := 'id';
            return;
        end if;
    elsif p_epoch <> v_epoch then
        outcome := 'stale';
        return;
    end if;
    for v_try in 1 .. 2 loop
        insert into mesh.job (
            app_id, job_id, generation, version, topic, seq, token, status, entity, input, search, trace_id, span_id,
            created_at, updated_at)
        values (p_app, v_job_id, v_generation, v_active, p_topic, 1, 0, 1, p_entity, p_data::json, p_search::json,
                p_trace_id, p_span_id, v_now, v_now)
        on conflict on constraint job_pk do nothing;
        if found then
            insert into mesh.engine_stream (
                app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, visible_at,
                created_at)
            values (p_app, v_job_id, v_generation, 'start', 'start', '', '{}', 'success', 200,
                    json_strip_nulls(json_build_object('pending', p_pending)), v_now, v_now);
            perform mesh.hint(mesh.channel(p_app), '{"e":1}');
            outcome := 'started';
            job_id := v_job_id;
            generation := v_generation;
            return;
        end if;
        exit when mesh.free_expired_ids(p_app, array[v_job_id]) = 0;
    end loop;
    outcome := 'duplicate';
end
$$;
-- Whoever may call it starts jobs: grant it to the roles that should.
revoke all on function mesh.try_start_job(text, text, text, text, text, text, double precision, text, text, bigint)
  from public;
