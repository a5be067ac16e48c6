-- commit_steps: write any number of steps in one statement; each counts as a whole or not at all.
--
-- Steps are numbered from 0 within the call; every array element says which step it belongs to. Whatever is written is
-- written for all steps at once, in this order:
--   1. Refuse   under other definitions, every step; then those whose job is in other hands, whose new job's id is
--               taken, whose job has moved. Jobs are created and changed on the way.
--   2. Consume  what the steps answer is deleted; work is reserved (reserve_work); what waited for it is released.
--   3. Add      records, work, messages, timers, waits, signals.
--   4. End      what jobs drop that end before they are done (drop_jobs); what few steps have (commit_extras).
--   5. Tell     who listens (find_listeners), and a hint to other processes (wake).
-- Reads    mesh.app (one row: the epoch), the job rows that change.
-- Locks    job rows that change, in (app_id, job_id) order; then creates jobs in the same order; then signal keys in
--          the order of their numbers (lock_signal_keys), then rows of streams, timers and waits.
-- Returns  refused: the steps of which nothing was written; reasons, one per refused step:
--            lost       the job is no longer at the version that the step was computed from
--            busy       another transaction holds the job
--            duplicate  a job to be created exists; taken holds its id
--          A job whose id somebody chose (c_named) may also be on its way in a transaction of a caller's (try_start_job)
--          that stays open for long: 55P03 (lock_not_available) is raised then, and the caller tries again later.
--          epoch: of the app; differs from p_epoch when every step was refused because definitions changed.
--          held: of the rows to reserve, the positions (from 0) of those that p_member now holds.
--          listeners, heard: members elsewhere, and for each a topic of p_published that it wants.
--          woken: whether there is something new for the engines: a signal that met its waiter, an interrupt, a broadcast.
-- Plans    are made once, maybe while the tables are empty, when all jobs of an app look like one. So jobs are found by
--          their ids, each in a lateral subquery or from an array, and never by a join that could also begin with
--          the app. Rows of streams, timers and waits are found by `= any (array[…])`: to Postgres a queue whose rows are all
--          deleted looks empty, and it would read that first, from end to end; by an array it cannot. For the same
--          reason `(visible_at <= …) is true` stands where rows are found by their ids: that is no condition for an index.
-- Raises   MS002 when a consumed row is gone (its lease was lost, or somebody else answered); nothing is written then.
--          The caller asks which rows are gone, drops those events, and commits all the rest.
-- The parameters are those that sections.py declares.
create or replace function mesh.commit_steps(
    p_app text, p_member text, p_epoch bigint, p_token bigint, p_lease double precision,
    -- jobs to create
    c_step integer[], c_job_id text[], c_generation uuid[], c_version text[], c_topic text[], c_status integer[],
    c_input text[], c_data text[], c_error text[], c_ended boolean[], c_expire double precision[], c_created timestamptz[],
    c_extra text[], c_named boolean[],
    -- jobs to change
    u_step integer[], u_job_id text[], u_generation uuid[], u_seq bigint[], u_status integer[], u_data text[],
    u_error text[], u_open text[], u_ended boolean[], u_expire double precision[],
    -- records
    a_step integer[], a_generation uuid[], a_activity text[], a_dimension text[], a_type text[], a_state text[],
    a_code integer[], a_output text[], a_hook text[], a_error text[], a_seen text[], a_started timestamptz[],
    a_ended timestamptz[], a_attempt integer[],
    -- work for workers; w_local: reserved by p_member at once
    w_step integer[], w_job_id text[], w_generation uuid[], w_activity text[], w_dimension text[], w_topic text[],
    w_data text[], w_name text[], w_local boolean[], w_extra text[],
    -- rows that go with activity instances; d_what: their work is answered, their timer is done (both must be there),
    -- whatever waits for them is released, or (step -1) their work is reserved for p_member if nobody else has it
    d_step integer[], d_what text[], d_generation uuid[], d_activity text[], d_dimension text[],
    -- consumed messages
    x_step integer[], x_generation uuid[], x_message text[],
    -- messages for engines; e_generation null: the live generation of the job
    e_step integer[], e_job_id text[], e_generation uuid[], e_message text[], e_kind text[], e_activity text[],
    e_dimension text[], e_status text[], e_code integer[], e_data text[], e_delay double precision[],
    -- timers and waits to set
    t_step integer[], t_job_id text[], t_generation uuid[], t_activity text[], t_dimension text[],
    t_delay double precision[],
    h_step integer[], h_job_id text[], h_generation uuid[], h_activity text[], h_dimension text[], h_topic text[],
    h_key text[],
    -- signals to send
    s_step integer[], s_topic text[], s_key text[], s_data text[], s_status text[], s_code integer[],
    s_keep double precision[],
    -- jobs of which everything open is dropped; jobs whose awaited children are interrupted
    o_step integer[], o_generation uuid[], o_descend boolean[], o_job_id text[],
    -- what few steps have, as JSON; see commit_extras
    p_extras text,
    -- other processes: wake text, sent as it is; topics on which results are announced
    p_wake text, p_published text[],
    -- where p_member hears of answers to this work, while it has the jobs in memory
    p_reply_channel text,
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
begin
    -- 1. Refuse, and create and change jobs on the way.
    refused := '{}'; reasons := '{}'; taken := '{}'; woken := false; committed_at := v_now;
    select a.epoch into epoch from mesh.app as a where a.app_id = p_app;
    if epoch is distinct from p_epoch then
        return;
    end if;

    if c_step is not null and u_step is not null then
        -- Two engines may compute the same step, with the same child. The one that comes second must wait for the job,
        -- and then create nothing; if both created first, each would wait for the other.
        with locked as materialized (
            select w.step
              from (select * from unnest(u_step, u_job_id, u_generation, u_seq) as u(step, job_id, generation, seq)
                     order by u.job_id) as w
             cross join lateral (
                select from mesh.job as j
                 where j.app_id = p_app and j.job_id = w.job_id and j.generation = w.generation and j.seq = w.seq
                   -- Who holds it most likely advances it; and a process that stands still must not stop a whole batch.
                   for update skip locked) as j
        )
        select coalesce(array_agg(w.step order by w.step), '{}'),
               coalesce(array_agg(case when j.seq = w.seq then 'busy' else 'lost' end order by w.step), '{}'),
               coalesce(array_agg(''::text), '{}')
          into refused, reasons, taken
          from unnest(u_step, u_job_id, u_generation, u_seq) as w(step, job_id, generation, seq)
          left join lateral (
            select j.seq from mesh.job as j
             where j.app_id = p_app and j.job_id = w.job_id and j.generation = w.generation) as j on true
         where not exists (select from locked as l where l.step = w.step);
        v_all := cardinality(refused) = 0;
    end if;

    if c_step is not null then
        if c_named is not null then
            v_patience := current_setting('lock_timeout');
            perform set_config('lock_timeout', '50ms', true);
        end if;
        with wanted as materialized (
            select * from unnest(c_step, c_job_id, c_generation, c_version, c_topic, c_status, c_input, c_data, c_error,
                                 c_ended, c_expire, c_created, c_extra)
                       as w(step, job_id, generation, version, topic, status, input, data, error, ended, expire,
                            created_at, extra)
             where v_all or not w.step = any (refused)
        ), made as (
            insert into mesh.job (
                app_id, job_id, generation, version, topic, seq, token, status, input, data, error, expire,
                created_at, updated_at, ended_at, expires_at,
                job_key, entity, open, reply_to, trace_id, span_id, parent_job_id, parent_generation, parent_activity,
                parent_dimension, severed, origin_id, parent_id, search)
            select p_app, w.job_id, w.generation, w.version, w.topic, 1, p_token, w.status, w.input::json, w.data::json,
                   w.error::json, w.expire, w.created_at, v_now, case when w.ended then v_now end,
                   case when (w.ended or w.status = -1) and w.expire > 0 then v_now + w.expire * interval '1 second' end,
                   x.job_key, x.entity, x.open, x.reply_to, x.trace_id, x.span_id, x.parent_job_id, x.parent_generation,
                   x.parent_activity, x.parent_dimension::integer[], coalesce(x.severed, false), x.origin_id, x.parent_id,
                   x.search
              from wanted as w
              left join lateral json_to_record(w.extra::json) as x(
                   job_key text, entity text, open json, reply_to text, trace_id text, span_id text, parent_job_id text,
                   parent_generation uuid, parent_activity text, parent_dimension text, severed boolean,
                   origin_id text, parent_id text, search json) on w.extra is not null
             order by w.job_id
            on conflict on constraint job_pk do nothing
            returning generation
        )
        select coalesce(array_agg(m.generation), '{}') into v_made from made as m;
        if c_named is not null then
            perform set_config('lock_timeout', v_patience, true);
        end if;
        if cardinality(v_made) < cardinality(c_step) then
            select refused || coalesce(array_agg(f.step order by f.step), '{}'),
                   reasons || coalesce(array_agg('duplicate'::text), '{}'),
                   taken || coalesce(array_agg(f.job_id order by f.step), '{}')
              into refused, reasons, taken
              from (select distinct on (w.step) w.step, w.job_id
                      from unnest(c_step, c_job_id, c_generation) as w(step, job_id, generation)
                     where not w.generation = any (v_made) and (v_all or not w.step = any (refused))
                     order by w.step, w.job_id) as f;
            v_all := false;
        end if;
    end if;

    if u_step is not null then
        with wanted as materialized (
            select * from unnest(u_step, u_job_id, u_generation, u_seq, u_status, u_data, u_error, u_open, u_ended,
                                 u_expire)
                       as w(step, job_id, generation, seq, status, data, error, open, ended, expire)
             where v_all or not w.step = any (refused)
        ), locked as materialized (
            -- In id order, so that two batches with common jobs cannot deadlock.
            select w.*, j.place
              from (select * from wanted order by job_id) as w
             cross join lateral (
                select j.ctid as place from mesh.job as j
                 where j.app_id = p_app and j.job_id = w.job_id and j.generation = w.generation and j.seq = w.seq
                   for update skip locked) as j
        ), changed as (
            -- By the place of the row that was locked: by their ids, Postgres before 17 reads all rows of the batch for each of them.
            update mesh.job as j
               set seq = j.seq + 1, token = p_token, status = w.status, updated_at = v_now,
                   data = case when w.data is null then j.data else w.data::json end,
                   error = w.error::json, open = w.open::json, expire = w.expire,
                   -- A step that finds its job at its end consumes what came late, and changes nothing else.
                   ended_at = case when w.ended then v_now when w.status <= 0 then j.ended_at end,
                   expires_at = case when (w.ended or w.status = -1 and j.status > 0) and w.expire > 0
                                     then v_now + w.expire * interval '1 second'
                                     when not w.ended and w.status <= 0 then j.expires_at end
              from locked as w
             where j.ctid = w.place and j.generation = w.generation and j.seq = w.seq
            returning w.step
        )
        select count(*) into v_count from changed;
        if v_count < (select count(*) from unnest(u_step) as w(step) where v_all or not w.step = any (refused)) then
            for v_step, v_reason in
                select w.step, case when j.seq = w.seq then 'busy' else 'lost' end
                  from unnest(u_step, u_job_id, u_generation, u_seq) as w(step, job_id, generation, seq)
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

    if not v_all and c_step is not null then
        -- What a refused step has created so far goes again. Not what another one created: a child's generation
        -- follows from its parent's, so that two engines give it the same.
        delete from mesh.job as j
         using unnest(c_step, c_job_id, c_generation) as w(step, job_id, generation)
         where w.step = any (refused) and j.app_id = p_app and j.job_id = any (c_job_id) and j.job_id = w.job_id
           and j.generation = w.generation and j.token = p_token;
    end if;

    -- 2. Consume.
    if h_step is not null or s_step is not null then
        -- Before any wait is removed: whoever brings a signal holds its key, and then removes the wait.
        perform mesh.lock_signal_keys(p_app, h_topic || s_topic, h_key || s_key);
    end if;

    if d_step is not null then
        with wanted as materialized (
            select w.step, w.what, w.generation, w.activity, w.dimension::integer[] as dimension
              from unnest(d_step, d_what, d_generation, d_activity, d_dimension)
                   as w(step, what, generation, activity, dimension)
             where v_all or not w.step = any (refused)
        ), answered as (
            delete from mesh.worker_stream as s
             using wanted as w
             where w.what = 'answered' and s.generation = any (array[w.generation]) and s.activity_id = w.activity
               and s.dimension = w.dimension and s.reserved_by = p_member
            returning 1
        ), timed as (
            -- A timer that fired is also released: it counts as the one that has to be there.
            delete from mesh.timer as s
             using (select distinct on (t.generation, t.activity, t.dimension) t.* from wanted as t
                     where t.what in ('timer', 'release')
                     order by t.generation, t.activity, t.dimension, t.what desc) as w
             where s.generation = any (array[w.generation]) and s.activity_id = w.activity
               and s.dimension = w.dimension
            returning w.what
        )
        select (select count(*) from answered) + (select count(*) from timed where what = 'timer')
             - (select count(*) from wanted where what in ('answered', 'timer'))
          into v_count;
        if v_count < 0 then
            raise exception sqlstate 'MS002' using message = 'work or timer was handled by another process';
        end if;
        if 'reserve' = any (d_what) then
            held := mesh.reserve_work(p_member, p_token, p_lease, d_what, d_generation, d_activity, d_dimension, v_now);
        end if;
        if 'release' = any (d_what) then
            with wanted as materialized (
                select w.generation, w.activity, w.dimension::integer[] as dimension
                  from unnest(d_step, d_what, d_generation, d_activity, d_dimension)
                       as w(step, what, generation, activity, dimension)
                 where w.what = 'release' and (v_all or not w.step = any (refused))
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
    end if;

    if x_step is not null then
        with gone as (
            delete from mesh.engine_stream as s
             using unnest(x_step, x_generation, x_message) as w(step, generation, message)
             where s.generation = any (array[w.generation]) and s.message_id = w.message and (v_all or not w.step = any (refused))
            returning 1
        )
        select count(*) into v_count from gone;
        if v_count < (select count(*) from unnest(x_step) as w(step) where v_all or not w.step = any (refused)) then
            raise exception sqlstate 'MS002' using message = 'message was handled by another process';
        end if;
    end if;

    -- 3. Add.
    if a_step is not null then
        insert into mesh.activity (
            generation, activity_id, dimension, type, state, code, output, hook, error, seen, started_at, ended_at,
            attempt)
        select w.generation, w.activity, w.dimension::integer[], w.type, w.state, w.code, w.output::json, w.hook::json,
               w.error::json, w.seen::text[], w.started_at, w.ended_at, w.attempt
          from unnest(a_step, a_generation, a_activity, a_dimension, a_type, a_state, a_code, a_output, a_hook, a_error,
                      a_seen, a_started, a_ended, a_attempt)
               as w(step, generation, activity, dimension, type, state, code, output, hook, error, seen, started_at,
                    ended_at, attempt)
         where v_all or not w.step = any (refused)
        on conflict on constraint activity_pk do update
           set state = excluded.state, code = excluded.code, output = excluded.output, hook = excluded.hook,
               error = excluded.error, seen = excluded.seen, ended_at = excluded.ended_at,
               attempt = excluded.attempt;
    end if;

    if w_step is not null then
        v_count := cardinality(w_step);
        insert into mesh.worker_stream (
            app_id, topic, generation, activity_id, dimension, job_id, data, workflow_name, delivery, visible_at,
            reserved_by, reservation, reply_channel, created_at, retry, retry_policy, trace_id, span_id)
        -- Rows of one commit keep their order: the earlier, the sooner visible, by microseconds.
        select p_app, w.topic, w.generation, w.activity, w.dimension::integer[], w.job_id, w.data::json, w.name,
               w.local::integer,
               case when w.local then v_now + p_lease * interval '1 second'
                    else v_now - (v_count - w.ordinal) * interval '1 microsecond' end,
               case when w.local then p_member end, case when w.local then p_token end, p_reply_channel, v_now, x.retry, x.retry_policy, x.trace_id, x.span_id
          from unnest(w_step, w_job_id, w_generation, w_activity, w_dimension, w_topic, w_data, w_name, w_local, w_extra)
               with ordinality
               as w(step, job_id, generation, activity, dimension, topic, data, name, local, extra, ordinal)
          left join lateral json_to_record(w.extra::json)
               as x(retry json, retry_policy json, trace_id text, span_id text) on w.extra is not null
         where v_all or not w.step = any (refused);
    end if;

    if e_step is not null then
        v_count := cardinality(e_step);
        insert into mesh.engine_stream (
            app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, visible_at,
            created_at)
        select p_app, w.job_id, j.generation, w.message, w.kind, w.activity,
               w.dimension::integer[], w.status, w.code, w.data::json,
               v_now + w.delay * interval '1 second' - (v_count - w.ordinal) * interval '1 microsecond', v_now
          from unnest(e_step, e_job_id, e_generation, e_message, e_kind, e_activity, e_dimension, e_status, e_code,
                      e_data, e_delay) with ordinality
               as w(step, job_id, generation, message, kind, activity, dimension, status, code, data, delay, ordinal)
         cross join lateral (
            select j.generation from mesh.job as j
             where j.app_id = p_app and j.job_id = w.job_id and j.status > 0
               and (w.generation is null or w.generation = j.generation)
             limit 1) as j
         where v_all or not w.step = any (refused)
        on conflict on constraint engine_stream_pk do nothing;
    end if;

    if t_step is not null then
        insert into mesh.timer (app_id, job_id, generation, activity_id, dimension, due_at, set_at)
        select p_app, w.job_id, w.generation, w.activity, w.dimension::integer[],
               v_now + w.delay * interval '1 second', v_now
          from unnest(t_step, t_job_id, t_generation, t_activity, t_dimension, t_delay)
               as w(step, job_id, generation, activity, dimension, delay)
         where v_all or not w.step = any (refused);
    end if;

    if h_step is not null then
        insert into mesh.wait (app_id, job_id, generation, activity_id, dimension, topic, key, created_at)
        select p_app, w.job_id, w.generation, w.activity, w.dimension::integer[], w.topic, w.key, v_now
          from unnest(h_step, h_job_id, h_generation, h_activity, h_dimension, h_topic, h_key)
               as w(step, job_id, generation, activity, dimension, topic, key)
         where v_all or not w.step = any (refused);
        if mesh.take_early_signals(p_app, h_topic, h_key) > 0 then
            woken := true;
        end if;
    end if;

    if s_step is not null then
        for v_step in
            select w.ordinal from unnest(s_step) with ordinality as w(step, ordinal)
             where v_all or not w.step = any (refused) order by w.ordinal
        loop
            if mesh.hand_over_signal(p_app, s_topic[v_step], s_key[v_step], s_data[v_step]::json, s_status[v_step],
                                     s_code[v_step], s_keep[v_step]) then
                woken := true;
            end if;
        end loop;
    end if;

    -- 4. End.
    if o_step is not null and mesh.drop_jobs(p_app, o_step, o_generation, o_descend, o_job_id, refused, v_now) then
        woken := true;
    end if;

    if p_extras is not null then
        if mesh.commit_extras(p_app, mesh.hide_nul(p_extras::json), refused, v_now) then
            woken := true;
        end if;
    end if;

    -- 5. Tell.
    if p_published is not null then
        select f.listeners, f.heard into listeners, heard
          from mesh.find_listeners(p_app, p_member, p_published, v_now) as f;
    end if;
    if p_wake is not null then
        perform mesh.wake(p_app, p_wake);
    end if;
end
$$;
