-- commit_steps: write any number of steps in one statement; each counts as a whole or not at all.
--
-- Steps are numbered from 0 within the call; every row says which step it belongs to. Whatever is written is written for
-- all steps at once, in this order:
--   1. Refuse   under other definitions, every step; then those whose job is in other hands, whose new job's id is
--               taken, whose job has moved. Jobs are created and changed on the way.
--   2. Consume  what the steps answer is deleted; work is reserved (reserve_work); what waited for it is released.
--   3. Add      records, operations, work, messages, timers, waits, signals.
--   4. End      what few steps have (commit_extras); what jobs drop that end before they are done (drop_jobs).
--   5. Tell     who listens (find_listeners), and a hint to other processes (wake).
-- Reads    mesh.app (one row: the epoch), the job rows that change.
-- Locks    signal keys in the order of their numbers (lock_signal_keys), then waits whose time is over; then job rows that
--          change, in (app_id, job_id) order, passing over those that others hold; then creates jobs in the same order; then
--          rows of streams, timers and waits, and at last work items.
-- Returns  refused: the steps of which nothing was written; reasons, one per refused step:
--            lost       the job is no longer at the version that the step was computed from
--            busy       another transaction holds the job
--            duplicate  a job to be created exists; taken holds its id. Or somebody waits under a key that a wait wants for
--                       itself alone: taken is topic:key then, or empty if that is another one of these steps
--            signalled  a wait whose time is over was given a signal meanwhile, which is in the stream, or about to be
--          A job whose id somebody chose (p_named) may also be on its way in a transaction of a caller's (try_start_job)
--          that stays open for long: 55P03 (lock_not_available) is raised then, and the caller tries again later.
--          epoch: of the app; differs from p_epoch when every step was refused because definitions changed.
--          held: of the rows to reserve, the positions (from 0) of those that p_member now holds.
--          listeners, heard: members elsewhere, and for each a topic of p_published that it wants.
--          woken: whether there is something new for the engines: a signal that met its waiter, an interrupt, a broadcast.
-- Plans    are made once, maybe while the tables are empty, when all jobs of an app look like one. So jobs are found by
--          their ids, each in a lateral subquery with a limit or a lock, and changed by the place (ctid) of what was
--          found: never by a join that could also begin with the app, nor by an id that is both in an array and a row's,
--          which makes a commit quadratic in its steps. Rows of streams, timers and waits are found by `= any (array[…])`: to
--          Postgres a queue whose rows are all deleted looks empty, and it would read that first, from end to end, and compare
--          each row with each of the batch; by an array it cannot. For the same reason `(visible_at <= …) is true` stands
--          where rows are found by their ids: that is no condition for an index.
-- Raises   MS002 when a consumed row is gone (its lease was lost, or somebody else answered); nothing is written then.
--          The caller asks which rows are gone, drops those events, and commits all the rest.
--          MS003 when p_tenure is not there, or has lapsed: others may have the jobs. Nothing is written; the caller
--          commits again with another one.
-- The parameters are those that sections.py declares. A section comes as rows, a JSON array of arrays, whose columns have the
-- order that stands here, beside their values, an array for each; null is empty. A test compares what is read with the
-- declaration, by place, name and type.
create or replace function mesh.commit_steps(
    p_app text, p_member text, p_epoch bigint, p_token bigint, p_lease double precision,
    -- jobs to create: step, job_id, generation, version, topic, status, ended, expire, created, extra
    c_rows text, c_input text[], c_data text[], c_error text[],
    -- jobs to change: step, job_id, generation, seq, status, ended, expire, held; held null: as it was
    u_rows text, u_data text[], u_error text[], u_open text[],
    -- records: step, generation, activity, dimension, type, state, code, seen, started, ended, attempt
    a_rows text, a_output text[], a_hook text[], a_error text[],
    -- operations of durable functions that have an outcome: step, generation, strand, position, seq, kind, name, status,
    -- attempt, started, ended
    q_rows text, q_result text[], q_error text[],
    -- work for workers: step, job_id, generation, activity, dimension, topic, name, local, extra; local: reserved by p_member
    -- at once
    w_rows text, w_data text[],
    -- work that is answered: step, generation, activity, dimension, holder, reservation; it must be there, and held by the holder,
    -- by that reservation; null: by p_member, by any
    d_rows text,
    -- rows that go with activity instances, each: step, generation, activity, dimension
    f_rows text,  -- their timer has fired: it must be there
    k_rows text,  -- their work is reserved for p_member if nobody else has it (step -1)
    -- whatever waits for them is released: step, generation, activity, dimension, awaited; awaited: they wait still, or the step
    -- is refused
    r_rows text,
    -- consumed messages: step, generation, message
    x_rows text,
    -- messages for engines: step, job_id, generation, message, kind, activity, dimension, status, code, delay; generation
    -- null: the live one of the job
    e_rows text, e_data text[],
    -- timers to set: step, job_id, generation, activity, dimension, delay
    t_rows text,
    -- waits to register: step, job_id, generation, activity, dimension, topic, key, alone; alone: nobody else may wait under it
    h_rows text,
    -- signals to send: step, topic, key, status, code, keep
    s_rows text, s_data text[],
    -- jobs of which everything open is dropped; descend: their awaited children are interrupted; step, generation, descend,
    -- job_id
    o_rows text,
    -- whether somebody chose the id of a job to create
    p_named boolean,
    -- what few steps have, as JSON; see commit_extras
    p_extras text,
    -- other processes: wake text, sent as it is; topics on which results are announced
    p_wake text, p_published text[],
    -- where p_member hears of answers to this work, while it has the jobs in memory
    p_reply_channel text,
    -- that of p_member, if it holds a job of these steps from here on
    p_tenure bigint,
    out refused integer[], out reasons text[], out taken text[], out epoch bigint, out woken boolean,
    out listeners text[], out heard text[], out held integer[], out committed_at timestamptz
) language plpgsql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_now     constant timestamptz := mesh.clock();
    v_count   integer;
    v_step    integer;
    v_reason  text;
    v_made    uuid[];
    v_all     boolean := true;
    v_patience text;
    v_topics  text[];
    v_keys    text[];
    v_signal  record;
begin
    -- 1. Refuse, and create and change jobs on the way.
    refused := '{}'; reasons := '{}'; taken := '{}'; woken := false; committed_at := v_now;
    select a.epoch into epoch from mesh.app as a where a.app_id = p_app;
    if epoch is distinct from p_epoch then
        return;
    end if;

    if h_rows is not null or s_rows is not null then
        -- Before any wait is removed: whoever brings a signal holds its key, and then removes the wait.
        select array_agg(k.topic), array_agg(k.key) into v_topics, v_keys
          from (select h.r ->> 5 as topic, h.r ->> 6 as key from jsonb_array_elements(h_rows::jsonb) as h(r)
                 union all
                select s.r ->> 1 as topic, s.r ->> 2 as key from jsonb_array_elements(s_rows::jsonb) as s(r)) as k;
        perform mesh.lock_signal_keys(p_app, v_topics, v_keys);
    end if;
    if strpos(r_rows, 'true') > 0 then
        with wanted as materialized (
            select (r.r ->> 0)::integer as step, (r.r ->> 1)::uuid as generation, r.r ->> 2 as activity,
                   (r.r ->> 3)::integer[] as dimension
              from jsonb_array_elements(r_rows::jsonb) as r(r)
             where (r.r ->> 4)::boolean
             order by 2, 3, 4
        ), locked as materialized (
            select w.step, s.place
              from wanted as w
              left join lateral (
                select s.ctid as place from mesh.wait as s
                 where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension
                   for update) as s on true
        )
        select coalesce(array_agg(distinct l.step), '{}') into refused from locked as l where l.place is null;
        reasons := array_fill('signalled'::text, array[cardinality(refused)]);
        taken := array_fill(''::text, array[cardinality(refused)]);
        v_all := cardinality(refused) = 0;
    end if;
    if strpos(h_rows, 'true') > 0 then
        for v_step, v_reason in
            select distinct on (w.step) w.step,
                   case when w.turn = 1 or w.others then w.topic || ':' || w.key else '' end
              from (select (h.r ->> 0)::integer as step, h.r ->> 5 as topic, h.r ->> 6 as key, (h.r ->> 7)::boolean as alone,
                           row_number() over (partition by h.r ->> 5, h.r ->> 6 order by h.ordinal) as turn,
                           exists (select from mesh.wait as o
                                    where o.app_id = p_app and o.topic = h.r ->> 5 and o.key = h.r ->> 6) as others
                      from jsonb_array_elements(h_rows::jsonb) with ordinality as h(r, ordinal)) as w
             where w.alone and (w.others or w.turn > 1) and not w.step = any (refused)
             order by w.step, w.others desc
        loop
            refused := refused || v_step; reasons := reasons || 'duplicate'::text; taken := taken || v_reason;
            v_all := false;
        end loop;
    end if;

    if c_rows is not null and u_rows is not null then
        -- Two engines may compute the same step, with the same child. The one that comes second must wait for the job,
        -- and then create nothing; if both created first, each would wait for the other.
        with wanted as materialized (
            select (u.r ->> 0)::integer as step, u.r ->> 1 as job_id, (u.r ->> 2)::uuid as generation,
                   (u.r ->> 3)::bigint as seq
              from jsonb_array_elements(u_rows::jsonb) as u(r)
        ), locked as materialized (
            select w.*, j.place
              from (select * from wanted order by job_id) as w
              left join lateral (
                select j.ctid as place from mesh.job as j
                 where j.app_id = p_app and j.job_id = w.job_id and j.generation = w.generation and j.seq = w.seq
                   -- Who holds it most likely advances it; and a process that stands still must not stop a whole batch.
                   for update skip locked) as j on true
        )
        select refused || coalesce(array_agg(w.step order by w.step), '{}'),
               reasons || coalesce(array_agg(case when j.seq = w.seq then 'busy' else 'lost' end order by w.step), '{}'),
               taken || coalesce(array_agg(''::text), '{}')
          into refused, reasons, taken
          from locked as w
          left join lateral (
            select j.seq from mesh.job as j
             where j.app_id = p_app and j.job_id = w.job_id and j.generation = w.generation) as j on true
         where w.place is null and not w.step = any (refused);
        v_all := cardinality(refused) = 0;
    end if;

    if c_rows is not null then
        if p_named then
            v_patience := current_setting('lock_timeout');
            perform set_config('lock_timeout', '50ms', true);
        end if;
        with wanted as materialized (
            select (c.r ->> 0)::integer as step, c.r ->> 1 as job_id, (c.r ->> 2)::uuid as generation,
                   c.r ->> 3 as version, c.r ->> 4 as topic, (c.r ->> 5)::integer as status, c.input, c.data, c.error,
                   (c.r ->> 6)::boolean as ended, (c.r ->> 7)::double precision as expire,
                   (c.r ->> 8)::timestamptz as created, c.r ->> 9 as extra
              from rows from (jsonb_array_elements(c_rows::jsonb), unnest(c_input), unnest(c_data), unnest(c_error))
                   as c(r, input, data, error)
             where v_all or not (c.r ->> 0)::integer = any (refused)
        ), made as (
            insert into mesh.job (
                app_id, job_id, generation, version, topic, seq, token, status, input, data, error, expire,
                created_at, updated_at, ended_at, expires_at,
                job_key, entity, open, reply_to, trace_id, span_id, parent_job_id, parent_generation, parent_activity,
                parent_dimension, severed, origin_id, parent_id, search, queue, settings, held, tenure)
            select p_app, w.job_id, w.generation, w.version, w.topic, 1, p_token, w.status, w.input::json, w.data::json,
                   w.error::json, w.expire, w.created, v_now, case when w.ended then v_now end,
                   case when (w.ended or w.status = -1) and w.expire > 0 then v_now + w.expire * interval '1 second' end,
                   x.job_key, x.entity, x.open, x.reply_to, x.trace_id, x.span_id, x.parent_job_id, x.parent_generation,
                   x.parent_activity, x.parent_dimension::integer[], coalesce(x.severed, false), x.origin_id, x.parent_id,
                   x.search, x.queue, x.settings, coalesce(x.held, false), case when x.held then p_tenure end
              from wanted as w
              left join lateral json_to_record(w.extra::json) as x(
                   job_key text, entity text, open json, reply_to text, trace_id text, span_id text, parent_job_id text,
                   parent_generation uuid, parent_activity text, parent_dimension text, severed boolean,
                   origin_id text, parent_id text, search json, queue text, settings json, held boolean)
                on w.extra is not null
             order by w.job_id
            on conflict on constraint job_pk do nothing
            returning generation
        )
        select coalesce(array_agg(m.generation), '{}'), (select count(*) from wanted) into v_made, v_count
          from made as m;
        if p_named then
            perform set_config('lock_timeout', v_patience, true);
        end if;
        if cardinality(v_made) < v_count then
            select refused || coalesce(array_agg(f.step order by f.step), '{}'),
                   reasons || coalesce(array_agg('duplicate'::text), '{}'),
                   taken || coalesce(array_agg(f.job_id order by f.step), '{}')
              into refused, reasons, taken
              from (select distinct on (w.step) w.step, w.job_id
                      from (select (c.r ->> 0)::integer as step, c.r ->> 1 as job_id, (c.r ->> 2)::uuid as generation
                              from jsonb_array_elements(c_rows::jsonb) as c(r)) as w
                     where not w.generation = any (v_made) and (v_all or not w.step = any (refused))
                     order by w.step, w.job_id) as f;
            v_all := false;
        end if;
    end if;

    if u_rows is not null then
        with wanted as materialized (
            select (u.r ->> 0)::integer as step, u.r ->> 1 as job_id, (u.r ->> 2)::uuid as generation,
                   (u.r ->> 3)::bigint as seq, (u.r ->> 4)::integer as status, u.data, u.error, u.open,
                   (u.r ->> 5)::boolean as ended, (u.r ->> 6)::double precision as expire,
                   (u.r ->> 7)::boolean as held
              from rows from (jsonb_array_elements(u_rows::jsonb), unnest(u_data), unnest(u_error), unnest(u_open))
                   as u(r, data, error, open)
             where v_all or not (u.r ->> 0)::integer = any (refused)
        ), locked as materialized (
            -- In id order, so that two batches with common jobs cannot deadlock.
            select w.*, j.place
              from (select * from wanted order by job_id) as w
             cross join lateral (
                select j.ctid as place from mesh.job as j
                 where j.app_id = p_app and j.job_id = w.job_id and j.generation = w.generation and j.seq = w.seq
                   for update skip locked) as j
        ), changed as (
            update mesh.job as j
               set seq = j.seq + 1, token = p_token, status = w.status, updated_at = v_now,
                   data = case when w.data is null then j.data else w.data::json end,
                   error = w.error::json, open = w.open::json, expire = w.expire,
                   -- The same tenure again changes no index: the row stays in its page (HOT).
                   held = coalesce(w.held, j.held), tenure = case when w.held then p_tenure else j.tenure end,
                   recoveries = case when w.held is null then j.recoveries else 0 end,
                   -- A step that finds its job at its end consumes what came late, and changes nothing else.
                   ended_at = case when w.ended then v_now when w.status <= 0 then j.ended_at end,
                   expires_at = case when (w.ended or w.status = -1 and j.status > 0) and w.expire > 0
                                     then v_now + w.expire * interval '1 second'
                                     when not w.ended and w.status <= 0 then j.expires_at end
              from locked as w
             where j.ctid = w.place and j.generation = w.generation and j.seq = w.seq
            returning 1
        )
        select count(*) - (select count(*) from wanted) into v_count from changed;
        if v_count < 0 then
            for v_step, v_reason in
                select w.step, case when j.seq = w.seq then 'busy' else 'lost' end
                  from (select (u.r ->> 0)::integer as step, u.r ->> 1 as job_id, (u.r ->> 2)::uuid as generation,
                               (u.r ->> 3)::bigint as seq
                          from jsonb_array_elements(u_rows::jsonb) as u(r)) as w
                  left join lateral (
                    select j.seq, j.token from mesh.job as j
                     where j.app_id = p_app and j.job_id = w.job_id and j.generation = w.generation) as j on true
                 where not w.step = any (refused) and (j.seq = w.seq + 1 and j.token = p_token) is not true
                 order by w.step
            loop
                refused := refused || v_step; reasons := reasons || v_reason; taken := taken || ''::text;
            end loop;
            v_all := false;
        end if;
    end if;

    if not v_all and c_rows is not null then
        -- What a refused step has created so far goes again. Not what another one created: a child's generation
        -- follows from its parent's, so that two engines give it the same.
        with created as materialized (
            select j.place
              from (select c.r ->> 1 as job_id, (c.r ->> 2)::uuid as generation
                      from jsonb_array_elements(c_rows::jsonb) as c(r)
                     where (c.r ->> 0)::integer = any (refused)) as w
             cross join lateral (
                select j.ctid as place from mesh.job as j
                 where j.app_id = p_app and j.job_id = w.job_id and j.generation = w.generation and j.token = p_token
                   for update) as j
        )
        delete from mesh.job as j using created as w where j.ctid = w.place;
    end if;

    -- 2. Consume.
    if d_rows is not null then
        with wanted as materialized (
            select (d.r ->> 1)::uuid as generation, d.r ->> 2 as activity, (d.r ->> 3)::integer[] as dimension,
                   coalesce(d.r ->> 4, p_member) as holder, (d.r ->> 5)::bigint as reservation
              from jsonb_array_elements(d_rows::jsonb) as d(r)
             where v_all or not (d.r ->> 0)::integer = any (refused)
        ), answered as (
            delete from mesh.worker_stream as s
             using wanted as w
             where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension
               and s.reserved_by = w.holder and (w.reservation is null or s.reservation = w.reservation)
            returning 1
        )
        select count(*) - (select count(*) from wanted) into v_count from answered;
        if v_count < 0 then
            raise exception sqlstate 'MS002' using message = 'work was handled by another process';
        end if;
    end if;

    if f_rows is not null then
        with wanted as materialized (
            select (f.r ->> 1)::uuid as generation, f.r ->> 2 as activity, (f.r ->> 3)::integer[] as dimension
              from jsonb_array_elements(f_rows::jsonb) as f(r)
             where v_all or not (f.r ->> 0)::integer = any (refused)
        ), fired as (
            delete from mesh.timer as s
             using wanted as w
             where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension
            returning 1
        )
        select count(*) - (select count(*) from wanted) into v_count from fired;
        if v_count < 0 then
            raise exception sqlstate 'MS002' using message = 'timer was handled by another process';
        end if;
    end if;

    if k_rows is not null then
        held := mesh.reserve_work(p_member, p_token, p_lease, k_rows::jsonb, v_now);
    end if;

    if r_rows is not null then
        with wanted as materialized (
            select (r.r ->> 1)::uuid as generation, r.r ->> 2 as activity, (r.r ->> 3)::integer[] as dimension
              from jsonb_array_elements(r_rows::jsonb) as r(r)
             where v_all or not (r.r ->> 0)::integer = any (refused)
        ), untimed as (
            delete from mesh.timer as s
             using wanted as w
             where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension
        ), unwaited as (
            delete from mesh.wait as s
             using wanted as w
             where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension
        ), answered as (
            delete from mesh.worker_pending as s
             using wanted as w
             where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension
        )
        delete from mesh.worker_stream as s
         using wanted as w
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension;
    end if;

    if x_rows is not null then
        with wanted as materialized (
            select (x.r ->> 1)::uuid as generation, x.r ->> 2 as message
              from jsonb_array_elements(x_rows::jsonb) as x(r)
             where v_all or not (x.r ->> 0)::integer = any (refused)
        ), gone as (
            delete from mesh.engine_stream as s
             using wanted as w
             where s.generation = any (array[w.generation]) and s.message_id = w.message
            returning 1
        )
        select count(*) - (select count(*) from wanted) into v_count from gone;
        if v_count < 0 then
            raise exception sqlstate 'MS002' using message = 'message was handled by another process';
        end if;
    end if;

    -- 3. Add.
    if a_rows is not null then
        insert into mesh.activity (
            generation, activity_id, dimension, type, state, code, output, hook, error, seen, started_at, ended_at,
            attempt)
        select (a.r ->> 1)::uuid as generation, a.r ->> 2 as activity, (a.r ->> 3)::integer[] as dimension,
               a.r ->> 4 as type, a.r ->> 5 as state, (a.r ->> 6)::integer as code, a.output::json, a.hook::json,
               a.error::json, (a.r ->> 7)::text[] as seen, (a.r ->> 8)::timestamptz as started,
               (a.r ->> 9)::timestamptz as ended, (a.r ->> 10)::integer as attempt
          from rows from (jsonb_array_elements(a_rows::jsonb), unnest(a_output), unnest(a_hook), unnest(a_error))
               as a(r, output, hook, error)
         where v_all or not (a.r ->> 0)::integer = any (refused)
        on conflict on constraint activity_pk do update
           set state = excluded.state, code = excluded.code, output = excluded.output, hook = excluded.hook,
               error = excluded.error, seen = excluded.seen, ended_at = excluded.ended_at,
               attempt = excluded.attempt;
    end if;

    if q_rows is not null then
        insert into mesh.operation (
            generation, strand, position, seq, kind, name, status, attempt, started_at, ended_at, result, error)
        select (q.r ->> 1)::uuid as generation, (q.r ->> 2)::integer as strand, (q.r ->> 3)::integer as position,
               (q.r ->> 4)::bigint as seq, q.r ->> 5 as kind, q.r ->> 6 as name, q.r ->> 7 as status,
               (q.r ->> 8)::integer as attempt, (q.r ->> 9)::timestamptz as started, (q.r ->> 10)::timestamptz as ended,
               q.result::json, q.error::json
          from rows from (jsonb_array_elements(q_rows::jsonb), unnest(q_result), unnest(q_error)) as q(r, result, error)
         where v_all or not (q.r ->> 0)::integer = any (refused)
        -- What came too late for it to count: a signal to a wait whose time was over.
        on conflict on constraint operation_pk do nothing;
    end if;

    if w_rows is not null then
        v_count := cardinality(w_data);
        insert into mesh.worker_stream (
            app_id, topic, generation, activity_id, dimension, job_id, data, workflow_name, delivery, visible_at,
            reserved_by, reservation, reply_channel, created_at, retry, retry_policy, trace_id, span_id)
        -- Rows of one commit keep their order: the earlier, the sooner visible, by microseconds.
        select p_app, w.topic, w.generation, w.activity, w.dimension, w.job_id, w.data::json, w.name, w.local::integer,
               case when w.local then v_now + p_lease * interval '1 second'
                    else v_now - (v_count - w.ordinal) * interval '1 microsecond' end,
               case when w.local then p_member end, case when w.local then p_token end, p_reply_channel, v_now, x.retry,
               x.retry_policy, x.trace_id, x.span_id
          from (select (w.r ->> 0)::integer as step, w.r ->> 1 as job_id, (w.r ->> 2)::uuid as generation,
                       w.r ->> 3 as activity, (w.r ->> 4)::integer[] as dimension, w.r ->> 5 as topic, w.data,
                       w.r ->> 6 as name, (w.r ->> 7)::boolean as local, w.r ->> 8 as extra, w.ordinal
                  from rows from (jsonb_array_elements(w_rows::jsonb), unnest(w_data)) with ordinality
                       as w(r, data, ordinal)
                 where v_all or not (w.r ->> 0)::integer = any (refused)
                offset 0) as w
          left join lateral json_to_record(w.extra::json)
               as x(retry json, retry_policy json, trace_id text, span_id text) on w.extra is not null;
    end if;

    if e_rows is not null then
        v_count := cardinality(e_data);
        insert into mesh.engine_stream (
            app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, visible_at,
            created_at)
        select p_app, w.job_id, j.generation, w.message, w.kind, w.activity, w.dimension, w.status, w.code,
               w.data::json,
               v_now + w.delay * interval '1 second' - (v_count - w.ordinal) * interval '1 microsecond', v_now
          from (select e.r ->> 1 as job_id, (e.r ->> 2)::uuid as generation, e.r ->> 3 as message, e.r ->> 4 as kind,
                       e.r ->> 5 as activity, (e.r ->> 6)::integer[] as dimension, e.r ->> 7 as status,
                       (e.r ->> 8)::integer as code, (e.r ->> 9)::double precision as delay, e.data, e.ordinal
                  from rows from (jsonb_array_elements(e_rows::jsonb), unnest(e_data)) with ordinality
                       as e(r, data, ordinal)
                 where v_all or not (e.r ->> 0)::integer = any (refused)
                offset 0) as w
         cross join lateral (
            select j.generation from mesh.job as j
             where j.app_id = p_app and j.job_id = w.job_id and j.status > 0
               and (w.generation is null or w.generation = j.generation)
             limit 1) as j
        on conflict on constraint engine_stream_pk do nothing;
    end if;

    if t_rows is not null then
        insert into mesh.timer (app_id, job_id, generation, activity_id, dimension, due_at, set_at)
        select p_app, t.r ->> 1 as job_id, (t.r ->> 2)::uuid as generation, t.r ->> 3 as activity,
               (t.r ->> 4)::integer[] as dimension,
               v_now + (t.r ->> 5)::double precision * interval '1 second', v_now
          from jsonb_array_elements(t_rows::jsonb) as t(r)
         where v_all or not (t.r ->> 0)::integer = any (refused);
    end if;

    if h_rows is not null then
        insert into mesh.wait (app_id, job_id, generation, activity_id, dimension, topic, key, created_at)
        select p_app, h.r ->> 1 as job_id, (h.r ->> 2)::uuid as generation, h.r ->> 3 as activity,
               (h.r ->> 4)::integer[] as dimension, h.r ->> 5 as topic, h.r ->> 6 as key, v_now
          from jsonb_array_elements(h_rows::jsonb) as h(r)
         where v_all or not (h.r ->> 0)::integer = any (refused);
        select array_agg(h.r ->> 5), array_agg(h.r ->> 6) into v_topics, v_keys
          from jsonb_array_elements(h_rows::jsonb) as h(r);
        if mesh.take_early_signals(p_app, v_topics, v_keys) > 0 then
            woken := true;
        end if;
    end if;

    if s_rows is not null then
        for v_signal in
            select s.r ->> 1 as topic, s.r ->> 2 as key, s.data::json, s.r ->> 3 as status, (s.r ->> 4)::integer as code,
                   (s.r ->> 5)::double precision as keep
              from rows from (jsonb_array_elements(s_rows::jsonb), unnest(s_data)) with ordinality as s(r, data, ordinal)
             where v_all or not (s.r ->> 0)::integer = any (refused) order by s.ordinal
        loop
            if mesh.hand_over_signal(p_app, v_signal.topic, v_signal.key, v_signal.data, v_signal.status, v_signal.code,
                                     v_signal.keep) then
                woken := true;
            end if;
        end loop;
    end if;

    -- 4. End.
    if p_extras is not null then
        if mesh.commit_extras(p_app, mesh.hide_nul(p_extras::json), refused, v_now) then
            woken := true;
        end if;
    end if;

    -- After work items have ended that a signal or a timer has ended: what is left of them is cancelled.
    if o_rows is not null and mesh.drop_jobs(p_app, o_rows::jsonb, refused, v_now) then
        woken := true;
    end if;

    -- 5. Tell.
    if p_published is not null then
        select f.listeners, f.heard into listeners, heard
          from mesh.find_listeners(p_app, p_member, p_published, v_now) as f;
    end if;
    if p_wake is not null then
        perform mesh.wake(p_app, p_wake);
    end if;
    -- At the very end, when this transaction has its number: see hand_over_tenure.
    if p_tenure is not null and not exists (select from mesh.tenure as t where t.tenure = p_tenure and not t.lapsed) then
        raise exception sqlstate 'MS003' using message = 'the tenure of this process is over';
    end if;
end
$$;
