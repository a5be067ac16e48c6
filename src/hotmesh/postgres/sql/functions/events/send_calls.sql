-- send_calls: send what callers ask of jobs, messages and signals, any number at once; each counts by itself.
-- m_rows   messages: number, job_id, generation (null: the live one), message, kind, activity, dimension, status, code, delay;
--          a JSON array of arrays, and beside it an array of what each carries; null is empty.
-- s_rows   signals, likewise: number, topic, keys, status, code, keep, delay. The keys are those it has by the rules of the
--          deployed versions; the first one that somebody waits under counts. Nobody does: it is kept under the first one,
--          which is the active version's. keep: for how many seconds (null: it is dropped).
--          delay: for how long others leave to the caller's process what is sent; 0 wakes them, by p_wake.
-- Locks    signal keys in the order of their numbers, then messages in the order of their ids, then waits. Whoever else holds a
--          job that is to be interrupted, or a wait, is not waited for. So no two of these, and none of them and a step
--          (commit_steps), can deadlock.
-- Returns  a row for each: outcome as of put_message, or delivered | kept | dropped | busy (somebody holds the wait: nothing was
--          done) | again (it has the key of another one of these: nothing was done, either); generation, activity and address of whom it is for, if
--          it was sent; message: under which id it lies in the stream, null if what was sent before has to be handled first.
create or replace function mesh.send_calls(
    p_app text, m_rows text, m_data text[], s_rows text, s_data text[], p_wake text
) returns table (
    number integer, outcome text, job_id text, generation uuid, activity_id text, dimension integer[], message_id text,
    sent_at timestamptz
) language plpgsql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_call   record;
    v_put    record;
    v_topics text[];
    v_keys   text[];
    v_told   boolean;
    v_wake   boolean := false;
begin
    sent_at := mesh.clock();
    if s_rows is not null then
        select array_agg(s.r ->> 1), array_agg(k.key) into v_topics, v_keys
          from jsonb_array_elements(s_rows::jsonb) as s(r)
         cross join lateral jsonb_array_elements_text(s.r -> 2) as k(key);
        perform mesh.lock_signal_keys(p_app, v_topics, v_keys);
    end if;

    if m_rows is not null then
        for v_call in
            select (m.r ->> 0)::integer as number, m.r ->> 1 as job_id, (m.r ->> 2)::uuid as generation,
                   m.r ->> 3 as message, m.r ->> 4 as kind, m.r ->> 5 as activity, (m.r ->> 6)::integer[] as dimension,
                   m.r ->> 7 as status, (m.r ->> 8)::integer as code, (m.r ->> 9)::double precision as delay,
                   m.data::json as data
              from rows from (jsonb_array_elements(m_rows::jsonb), unnest(m_data)) with ordinality as m(r, data, ordinal)
             order by m.r ->> 1, m.r ->> 3, m.ordinal
        loop
            select p.* into v_put
              from mesh.put_message(
                p_app, v_call.job_id, v_call.generation, v_call.message, v_call.kind, v_call.activity, v_call.dimension,
                v_call.status, v_call.code, v_call.data, v_call.delay) as p;
            number := v_call.number; outcome := v_put.outcome; generation := v_put.generation;
            job_id := v_call.job_id; activity_id := v_call.activity; dimension := v_call.dimension;
            message_id := case when v_put.in_turn then v_call.message end;
            v_wake := v_wake or (outcome = 'sent' and (v_call.delay = 0 or not v_put.in_turn));
            return next;
        end loop;
    end if;

    if s_rows is not null then
        for number, outcome, job_id, generation, activity_id, dimension, message_id, v_told in
            with wanted as materialized (
                select (s.r ->> 0)::integer as number, s.r ->> 1 as topic, s.r -> 2 as keys, s.r ->> 3 as status,
                       (s.r ->> 4)::integer as code, (s.r ->> 5)::double precision as keep,
                       (s.r ->> 6)::double precision as delay, s.data::json as data, s.ordinal
                  from rows from (jsonb_array_elements(s_rows::jsonb), unnest(s_data)) with ordinality
                       as s(r, data, ordinal)
            ), keyed as materialized (
                select w.*, row_number() over (partition by w.topic, w.key order by w.ordinal) as turn
                  from (select w.*, coalesce(
                                   case when jsonb_array_length(w.keys) > 1 then (
                                       select k.key
                                         from jsonb_array_elements_text(w.keys) with ordinality as k(key, ordinal)
                                        where exists (select from mesh.wait as o
                                                       where o.app_id = p_app and o.topic = w.topic and o.key = k.key)
                                        order by k.ordinal limit 1) end,
                                   w.keys ->> 0) as key
                          from wanted as w) as w
            ), met as materialized (
                select w.*, o.place, o.job_id, o.generation, o.activity_id, o.dimension,
                       case when o.place is not null then 'signal:' || gen_random_uuid() end as message,
                       case when o.place is not null then 'delivered'
                            when w.turn > 1 then 'again'
                            when exists (select from mesh.wait as h
                                          where h.app_id = p_app and h.topic = w.topic and h.key = w.key) then 'busy'
                            when w.keep is null then 'dropped'
                            else 'kept' end as outcome
                  from keyed as w
                  left join lateral (
                    select o.ctid as place, o.job_id, o.generation, o.activity_id, o.dimension from mesh.wait as o
                     where w.turn = 1 and o.app_id = p_app and o.topic = w.topic and o.key = w.key
                     order by o.created_at, o.generation limit 1
                       for update skip locked) as o on true
            ), ended as (
                delete from mesh.wait as o using met as m where o.ctid = m.place and m.status <> 'pending'
            ), kept as (
                insert into mesh.signal (app_id, topic, key, ordinal, data, status, code, created_at, expires_at)
                select p_app, m.topic, m.key, mesh.next_signal(p_app, m.topic, m.key), m.data, m.status, m.code, sent_at,
                       sent_at + m.keep * interval '1 second'
                  from met as m
                 where m.outcome = 'kept'
                on conflict on constraint signal_pk do update
                   set data = excluded.data, status = excluded.status, code = excluded.code,
                       created_at = excluded.created_at, expires_at = excluded.expires_at
            ), sent as (
                insert into mesh.engine_stream (
                    app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, visible_at,
                    created_at)
                select p_app, m.job_id, m.generation, m.message, 'signal', m.activity_id, m.dimension, m.status, m.code,
                       m.data,
                       -- Signals keep their order: each is visible a microsecond after the one before that is still to come.
                       greatest(sent_at + m.delay * interval '1 second',
                                (select max(s.visible_at) from mesh.engine_stream as s
                                  where s.generation = m.generation and s.kind = 'signal' and s.visible_at >= sent_at
                                    and s.visible_at < sent_at + interval '1 second')) + m.ordinal * interval '1 microsecond',
                       sent_at
                  from met as m
                 where m.place is not null
            )
            select m.number, m.outcome, m.job_id, m.generation, m.activity_id, m.dimension, m.message, m.delay > 0
              from met as m
        loop
            v_wake := v_wake or (outcome = 'delivered' and not v_told);
            return next;
        end loop;
    end if;

    if v_wake then
        perform mesh.wake(p_app, p_wake);
    end if;
end
$$;
