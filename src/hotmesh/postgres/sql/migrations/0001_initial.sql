-- The tables of a mesh. `mesh` stands for the schema of the namespace; it is replaced, quoted, when this is loaded.
--
-- What may run     app                      an application, and which of its versions is active
--                  app_version              a deployed version: its compiled graphs
-- What runs        job                      one row for each job, changed once per step
--                  activity                 what one pass of an activity left: output, signal, error
--                  operation                what a durable function has asked for, and what became of it
--                  tenure                   the right of a process on jobs whose next event exists in its memory only
-- What is to come  worker_stream            work for user code, by topic
--                  engine_stream            events for engines: answers, results of children, signals, interrupts
--                  timer                    what sleeps, and until when
--                  wait, signal             hooks that wait for a signal; signals that came before their waiter
--                  broadcast                signals to all jobs that are counted alike, still to be carried out
-- What is kept     dead_letter              what was given up, with the reason
--                  escalation               work items for humans
--                  measure                  what is counted about jobs
-- The mesh         member                   who is there, as far as others can tell when it is not any more
--                  subscription             processes that listen to results, while they live
--                  throttle                 how fast engines and workers may start
--                  quorum_message           messages between members that are too large for a notification
--                  upkeep                   whose turn it is to keep the tables small
-- Safety           secret, signal_lock      what names and locks are made of, out of reach of worker logins
--                  worker_credential        logins for workers in untrusted places, and their bounds
--                  worker_mark              which of their claims were committed last
--                  worker_pending           activities that such a login has answered, and may answer further
--                  worker_credential_audit  what was done to these logins, when and by whom
--
-- The life of a job, with the stored functions that write the rows:
--
-- 1. commit_steps creates the job, and with it whatever its first step asks for: work, timers, waits, children.
-- 2. claim_work reserves work for a process that runs the callback; extend_work keeps it, postpone_work and
--    give_back_work let others have it. A step of a process that has the job in memory may reserve its work at once.
-- 3. Its answer is part of the next step of that process; or answer_work exchanges the work for an event.
-- 4. send_calls hands a signal to the oldest wait, as an event; if there is none, it is kept as a row of signal.
-- 5. lock_due_jobs takes jobs with due events or timers; commit_steps writes what became of them: the job has its
--    next seq, the records of its activities are there, what was handled is deleted, and what comes next is added.
-- 6. What nobody can handle is put off (postpone_work, postpone_events), and in the end buried as a dead_letter
--    (bury_work, bury_events, bury_broadcast), as is what processes die of (set_beside, count_due), from where requeue_dead_letter brings it back.
-- 7. The step that ends the job deletes whatever was still to come. The job and its records stay until it expires;
--    then free_expired_ids and prune delete them.
--
-- `generation` identifies one creation of a job id; every runtime row of a job carries it, and every key starts with
-- it, so that the rows of one job lie together. Hot tables have no foreign keys, which would cost every commit.

create table mesh.app (
    app_id          text        not null,
    active_version  text,
    epoch           bigint      not null default 0,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    engine_deaths   integer     not null default 0,
    engine_died_at  timestamptz,
    constraint app_pk primary key (app_id),
    constraint app_id_is_a_name check (app_id ~ '^[A-Za-z0-9-]+$')
);
comment on table mesh.app is 'An application: which of its versions is active.';
comment on column mesh.app.engine_deaths is
    'Engines that died one after the other, each within five minutes of the one before; the last one at engine_died_at.';
comment on column mesh.app.epoch is
    'Grows with every deploy and activation; a step computed under an older one is refused and computed again.';

create table mesh.app_version (
    app_id       text        not null,
    version      text        not null,
    revision     bigint      not null default 1,
    graph        json        not null,
    checksum     text        not null,
    deployed_at  timestamptz not null default now(),
    activated_at timestamptz,
    constraint app_version_pk primary key (app_id, version),
    constraint app_version_app_fk foreign key (app_id) references mesh.app (app_id),
    constraint version_is_named check (version <> '')
);
comment on table mesh.app_version is 'A deployed version of an application: its compiled graphs.';

create table mesh.job (
    app_id            text        not null,
    job_id            text        not null,
    generation        uuid        not null,
    version           text        not null,
    topic             text        not null,
    seq               bigint      not null,
    token             bigint      not null,
    status            integer     not null,
    job_key           text,
    entity            text,
    input             json,
    data              json,
    error             json,
    open              json,
    expire            double precision,
    reply_to          text,
    trace_id          text,
    span_id           text,
    parent_job_id     text,
    parent_generation uuid,
    parent_activity   text,
    parent_dimension  integer[],
    severed           boolean     not null default false,
    origin_id         text,
    parent_id         text,
    search            json,
    cancelled         boolean     not null default false,
    created_at        timestamptz not null,
    updated_at        timestamptz not null,
    ended_at          timestamptz,
    expires_at        timestamptz,
    pruned_at         timestamptz,
    queue             text,
    settings          json,
    tenure            bigint,
    held              boolean     not null default false,
    recoveries        smallint    not null default 0,
    constraint job_pk primary key (app_id, job_id),
    constraint job_id_is_short check (length(job_id) between 1 and 512),
    constraint seq_counts_steps check (seq >= 1),
    constraint complete_means_ended check (status <> 0 or ended_at is not null),
    constraint ended_means_closed check (ended_at is null or status <= 0),
    constraint parent_is_whole check ((parent_generation is null) = (parent_activity is null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2);
comment on table mesh.job is 'A job: one versioned row. status counts open obligations; 0 is complete.';
comment on column mesh.job.seq is 'Steps committed so far; a step computed against another number is refused.';
comment on column mesh.job.token is 'Marks the step that wrote the row, so that a lost answer to a commit can be settled.';
comment on column mesh.job.queue is 'Of a durable function: where it runs; topic is its name then. Null: a graph.';
comment on column mesh.job.settings is 'Of a durable function: what its start said beyond the columns.';
comment on column mesh.job.held is
    'Its next event exists in the memory of the process of tenure only: the result of a step that runs there.';
comment on column mesh.job.recoveries is 'How often in a row it was taken from a process that had died.';
create index job_tenure on mesh.job (tenure) where tenure is not null;
create index job_children on mesh.job (parent_generation) where parent_generation is not null;
create index job_created on mesh.job using brin (created_at) with (autosummarize = on, pages_per_range = 32);
-- When its time is over at the earliest: of columns that a job has from its beginning, so that its steps stay in their page (HOT) before
-- Postgres 16, too. In UTC, where a sum is the same in all sessions.
create index job_expiry on mesh.job using brin (((created_at at time zone 'UTC') + (case when expire > 0 then least(expire, 1e9) else 1e9 end) * interval '1 second'))
    with (autosummarize = on, pages_per_range = 32);
create index job_entity on mesh.job (app_id, entity, created_at) where entity is not null;

create table mesh.activity (
    generation   uuid        not null,
    activity_id  text        not null,
    dimension    integer[]   not null,
    type         text        not null,
    state        text        not null,
    code         integer,
    output       json,
    hook         json,
    error        json,
    seen         text[],
    attempt      integer,
    started_at   timestamptz,
    ended_at     timestamptz,
    constraint activity_pk primary key (generation, activity_id, dimension),
    constraint state_is_known check (state in ('open', 'pending', 'closed')),
    constraint closed_means_ended check (state <> 'closed' or ended_at is not null)
) with (fillfactor = 90, autovacuum_vacuum_insert_scale_factor = 0.2);
comment on column mesh.activity.attempt is 'Tries of the worker that failed before its answer; null: none did.';
comment on table mesh.activity is 'What one pass of an activity left: its output, the signal that resumed it, its error.';

create table mesh.operation (
    generation uuid        not null,
    strand     integer     not null,
    position   integer     not null,
    seq        bigint,
    kind       text        not null,
    name       text        not null,
    status     text        not null,
    input      json,
    result     json,
    error      json,
    attempt    integer,
    started_at timestamptz,
    ended_at   timestamptz not null,
    constraint operation_pk primary key (generation, strand, position),
    constraint operation_status_is_known check (status in ('done', 'failed', 'cancelled', 'released'))
) with (fillfactor = 100, autovacuum_vacuum_insert_scale_factor = 0.2);
comment on table mesh.operation is
    'What a durable function has asked for, by position, and what became of it. What is open has a row elsewhere, or runs in a process.';
comment on column mesh.operation.seq is
    'The order in which the function is told: the version of the job that recorded it * 65536 + its place in that step.';
comment on column mesh.operation.attempt is 'How often it was tried; null: once.';

create table mesh.tenure (
    tenure     bigint      generated always as identity,
    app_id     text        not null,
    member     text        not null,
    until      timestamptz not null,
    lapsed     boolean     not null default false,
    fence      xid8,
    constraint tenure_pk primary key (tenure)
);
comment on table mesh.tenure is
    'The right of a process on the jobs that it holds, renewed while it lives; lapsed: others have them.';
comment on column mesh.tenure.fence is
    'No transaction from here on can have seen it unlapsed; it is kept until all older ones are over.';

create table mesh.worker_stream (
    app_id         text        not null,
    topic          text        not null,
    generation     uuid        not null,
    activity_id    text        not null,
    dimension      integer[]   not null,
    job_id         text        not null,
    data           json,
    workflow_name  text        not null,
    retry          json,
    retry_policy   json,
    trace_id       text,
    span_id        text,
    attempt        integer     not null default 0,
    delivery       integer     not null default 0,
    visible_at     timestamptz not null,
    reserved_by    text,
    reservation    bigint,
    reply_channel  text,
    reserved_at    timestamptz,
    last_error     text,
    beside         boolean,
    cancelled      boolean,
    heartbeat      json,
    handed_over    text,
    paused         boolean,
    created_at     timestamptz not null,
    constraint worker_stream_pk primary key (generation, activity_id, dimension),
    constraint attempts_are_counted check (attempt >= 0 and delivery >= 0)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
comment on table mesh.worker_stream is 'Work for user code. Reserved: reserved_by holds it until visible_at.';
-- So that what a lost connection left unanswered can be told and given back.
comment on column mesh.worker_stream.reservation is 'The claim or commit that reserved it.';
comment on column mesh.worker_stream.reply_channel is 'Where the engine that has the job in memory hears of the answer.';
comment on column mesh.worker_stream.last_error is
    'What its last failed attempt raised, in short; as the codec made it, if the app has one.';
comment on column mesh.worker_stream.beside is
    'Whether other work ran, or could run, beside it in the process that had it last; false: it was alone. Null: nobody has said.';
comment on column mesh.worker_stream.cancelled is
    'The workflow has asked it to end, and waits for that: whoever takes it runs nothing, and says so.';
comment on column mesh.worker_stream.paused is
    'Its workflow is paused: what nobody holds is visible a thousand years later than otherwise.';
comment on column mesh.worker_stream.handed_over is
    'It is ended by its token; the limit that ends the attempt at visible_at, empty: none. Whoever takes it then runs nothing.';
comment on column mesh.worker_stream.heartbeat is 'What its last heartbeats have said, for the next attempt; as the codec made it.';
comment on column mesh.worker_stream.reserved_at is 'Since when a worker login holds it; null for other holders.';
-- What nobody has, by topic and by name, and what somebody has, who may let its lease lapse. So nobody who looks for a name reads what waits
-- under others, and work that a commit reserves at once is in one of them only. In a form that no other condition implies: whoever looks
-- for rows by their key and holder would else be planned to go through one of these, where the table is believed to be empty; and whoever
-- looks for a name, through the shorter one, where most rows have the same name.
create index worker_stream_claim on mesh.worker_stream (app_id, topic, visible_at) where coalesce(reserved_by, '') = '';
create index worker_stream_named on mesh.worker_stream (app_id, topic, workflow_name, visible_at)
    where length(coalesce(reserved_by, '')) = 0;
create index worker_stream_held on mesh.worker_stream (app_id, topic, visible_at) where coalesce(reserved_by, '') <> '';
-- What a worker login holds, to be counted. Rows of ordinary workers are not in it and cost nothing.
create index worker_stream_secured on mesh.worker_stream (reserved_by collate "C", visible_at)
    where reserved_at is not null;

create table mesh.engine_stream (
    app_id         text        not null,
    job_id         text        not null,
    generation     uuid        not null,
    message_id     text        not null,
    kind           text        not null,
    activity_id    text        not null,
    dimension      integer[]   not null,
    status         text        not null,
    code           integer     not null,
    data           json,
    started_at     timestamptz,
    work_attempt   integer,
    attempt        integer     not null default 0,
    delivery       integer     not null default 0,
    visible_at     timestamptz not null,
    created_at     timestamptz not null,
    constraint engine_stream_pk primary key (generation, message_id),
    constraint kind_is_known
        check (kind in ('answer', 'added', 'result', 'signal', 'enter', 'interrupt', 'resume', 'start', 'cancel', 'pause')),
    constraint status_is_known check (status in ('success', 'pending', 'error'))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
comment on column mesh.engine_stream.delivery is 'How often it was taken, counted only while engines die one after the other.';
comment on table mesh.engine_stream is 'Events for engines: answers from workers elsewhere, results of children, signals.';
create index engine_stream_claim on mesh.engine_stream (app_id, visible_at);

create table mesh.timer (
    app_id       text        not null,
    job_id       text        not null,
    generation   uuid        not null,
    activity_id  text        not null,
    dimension    integer[]   not null,
    due_at       timestamptz not null,
    attempt      integer     not null default 0,
    delivery     integer     not null default 0,
    set_at       timestamptz not null,
    constraint timer_pk primary key (generation, activity_id, dimension)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
comment on table mesh.timer is 'What sleeps, and until when.';
create index timer_due on mesh.timer (app_id, due_at);

create table mesh.wait (
    app_id       text        not null,
    job_id       text        not null,
    generation   uuid        not null,
    activity_id  text        not null,
    dimension    integer[]   not null,
    topic        text        not null,
    key          text        not null,
    created_at   timestamptz not null,
    constraint wait_pk primary key (generation, activity_id, dimension)
);
comment on table mesh.wait is 'Hooks that wait for a signal: the oldest one under (topic, key) gets the next signal.';
create index wait_key on mesh.wait (app_id, topic, key, created_at);

create table mesh.signal (
    app_id      text        not null,
    topic       text        not null,
    key         text        not null,
    ordinal     integer     not null default 0,
    data        json,
    status      text        not null,
    code        integer     not null,
    created_at  timestamptz not null,
    expires_at  timestamptz not null,
    constraint signal_pk primary key (app_id, topic, key, ordinal)
);
comment on table mesh.signal is
    'Signals that came before their waiter. For a hook the last one under a key counts; for durable functions they queue up.';
create index signal_expiry on mesh.signal (expires_at);

create table mesh.broadcast (
    id          bigint      generated always as identity,
    app_id      text        not null,
    topic       text        not null,
    facet       text        not null,
    query       json        not null,
    data        json        not null,
    created_at  timestamptz not null,
    constraint broadcast_pk primary key (id)
);
comment on table mesh.broadcast is 'Signals that flows have sent to all jobs listed under a facet, still to be carried out.';
create index broadcast_app on mesh.broadcast (app_id, id);

create table mesh.dead_letter (
    id             bigint      generated always as identity,
    app_id         text        not null,
    stream         text        not null,
    topic          text        not null,
    job_id         text        not null,
    generation     uuid        not null,
    activity_id    text        not null,
    dimension      integer[]   not null,
    message        json        not null,
    reason         text        not null,
    dead_at        timestamptz not null,
    constraint dead_letter_pk primary key (id),
    constraint stream_is_known check (stream in ('worker', 'engine'))
);
comment on table mesh.dead_letter is 'Messages that were given up, with the reason; they can be requeued or discarded.';
create index dead_letter_app on mesh.dead_letter (app_id, dead_at);
create index dead_letter_job on mesh.dead_letter (generation);

create table mesh.escalation (
    id                 uuid        not null default gen_random_uuid(),
    namespace          text        not null,
    app_id             text        not null,
    signal_key         text,
    topic              text,
    workflow_id        text,
    task_queue         text,
    workflow_type      text,
    type               text,
    subtype            text,
    entity             text,
    description        text,
    role               text,
    status             text        not null default 'pending',
    priority           integer     not null default 5,
    assigned_to        text,
    assigned_until     timestamptz,
    claimed_at         timestamptz,
    claim_expires_at   timestamptz,
    resolved_at        timestamptz,
    escalation_payload jsonb,
    resolver_payload   jsonb,
    envelope           jsonb,
    metadata           jsonb,
    origin_id          text,
    parent_id          text,
    initiated_by       text,
    created_by         text,
    milestones         jsonb       not null default '[]',
    trace_id           text,
    span_id            text,
    expires_at         timestamptz,
    created_at         timestamptz not null default now(),
    updated_at         timestamptz not null default now(),
    task_id            text,
    constraint escalation_pk primary key (id),
    constraint escalation_status_is_known check (status in ('pending', 'resolved', 'expired', 'cancelled')),
    constraint resolved_means_dated check (resolved_at is null or status = 'resolved')
);
comment on table mesh.escalation is 'Work items for humans: each belongs to a wait, or stands alone.';
create unique index escalation_key on mesh.escalation (namespace, app_id, signal_key)
    where signal_key is not null and status = 'pending';
create index escalation_queue on mesh.escalation (namespace, app_id, role, priority, created_at) where status = 'pending';
create index escalation_assignee on mesh.escalation (assigned_to, status) where status = 'pending';
create index escalation_entity on mesh.escalation (entity) where entity is not null;
create index escalation_workflow on mesh.escalation (app_id, workflow_id);
create index escalation_origin on mesh.escalation (origin_id) where origin_id is not null;
create index escalation_task on mesh.escalation (task_id) where task_id is not null;
create index escalation_metadata on mesh.escalation using gin (metadata);

create table mesh.measure (
    id          bigint           generated always as identity,
    app_id      text             not null,
    topic       text             not null,
    job_key     text             not null,
    slice       text             not null,
    measure     text             not null,
    facet       text             not null,
    value       text             not null,
    number      double precision,
    job_id      text             not null,
    generation  uuid             not null,
    created_at  timestamptz      not null,
    constraint measure_pk primary key (app_id, topic, job_key, slice, id),
    constraint measure_is_known check (measure in ('count', 'sum', 'avg', 'mdn', 'min', 'max', 'index'))
);
comment on table mesh.measure is 'What triggers count about jobs, by job key and time slice: one row per job and measure.';

create table mesh.member (
    app_id     text        not null,
    guid       text        not null,
    joined_at  timestamptz not null,
    engine     boolean     not null default false,
    died_at    timestamptz,
    activities json,
    constraint member_pk primary key (app_id, guid)
);
comment on table mesh.member is
    'Members that hold the lock of their guid. A row without that lock: the member has died, and left what it held.';

comment on column mesh.member.activities is 'The activities that it runs, by topic; null: none.';

create table mesh.subscription (
    app_id      text        not null,
    member      text        not null,
    topic       text        not null,
    by_pattern  boolean     not null default false,
    expires_at  timestamptz not null,
    constraint subscription_pk primary key (app_id, topic, member, by_pattern)
);
comment on table mesh.subscription is 'Processes that want the results published under a topic; renewed while they live.';
comment on column mesh.subscription.by_pattern is 'The topic is a pattern: * stands for any run of characters.';
-- Empty unless somebody subscribes by pattern, so that looking there costs a commit next to nothing.
create index subscription_pattern on mesh.subscription (app_id) where by_pattern;
create index subscription_expiry on mesh.subscription (expires_at);

create table mesh.throttle (
    app_id  text        not null,
    scope   text        not null,
    topic   text        not null default '',
    rate    integer     not null,
    set_at  timestamptz not null,
    constraint throttle_pk primary key (app_id, scope, topic),
    constraint throttle_scope_is_known check (scope in ('engines', 'workers')),
    constraint only_workers_have_topics check (topic = '' or scope = 'workers'),
    constraint rate_is_a_delay_or_a_pause check (rate >= -1)
);
comment on table mesh.throttle is 'Rates that the engines or workers of an app obey. Nothing stored: no limit.';
comment on column mesh.throttle.topic is 'Of the workers of this topic only; empty: of all that have no rate of their own.';
comment on column mesh.throttle.rate is 'Least milliseconds between two starts of one consumer; -1: paused.';

create table mesh.quorum_message (
    id          bigint      generated always as identity,
    app_id      text        not null,
    message     text        not null,
    expires_at  timestamptz not null,
    constraint quorum_message_pk primary key (id)
);
comment on table mesh.quorum_message is 'Messages between members that are too large for a notification, for a minute.';

create table mesh.upkeep (
    app_id      text        not null,
    task        text        not null,
    due_at      timestamptz not null,
    held_by     text,
    at_page     bigint,
    constraint upkeep_pk primary key (app_id, task)
);
comment on table mesh.upkeep is 'Tasks that one process of an app at a time does: the next turn is at due_at.';
comment on column mesh.upkeep.held_by is 'Who is at it; due_at is then when its lease is over.';
comment on column mesh.upkeep.at_page is 'Of a task that goes through a table: the page where it goes on.';

-- Safety. Any login of the database may listen on a channel and take an advisory lock whose name it knows, whatever else
-- it may not do. So channels are named by a secret, and locks are rows; a worker login can reach neither.

create table mesh.secret (
    one    boolean not null default true,
    value  text    not null,
    constraint secret_pk primary key (one),
    constraint secret_is_one check (one),
    constraint secret_is_long check (length(value) >= 64)
);
comment on table mesh.secret is 'Names the NOTIFY channels of this namespace; not for the eyes of worker logins.';
insert into mesh.secret (value)
select replace(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, '-', '');

create table mesh.signal_lock (
    number integer not null,
    constraint signal_lock_pk primary key (number)
);
comment on table mesh.signal_lock is 'Rows that are locked and never change: waiters and signals under one key meet there.';
insert into mesh.signal_lock (number) select generate_series(0, 16383);

create table mesh.worker_credential (
    id               bigint           generated always as identity,
    role_name        text             not null,
    app_id           text             not null,
    topics           text[]           not null,
    most_held        integer          not null default 1000,
    most_deliveries  integer          not null default 20,
    most_attempts    integer          not null default 1000,
    longest_lease    double precision not null default 300,
    longest_hold     double precision not null default 1800,
    longest_delay    double precision not null default 604800,
    max_payload      integer          not null default 1048576,
    created_at       timestamptz      not null default now(),
    revoked_at       timestamptz,
    rotated_at       timestamptz,
    constraint worker_credential_pk primary key (id),
    constraint worker_credential_role unique (role_name),
    constraint topics_are_named check (cardinality(topics) >= 1 and array_position(topics, null) is null),
    constraint bounds_are_positive check (
        most_held > 0 and most_deliveries > 0 and most_attempts > 0 and longest_lease > 0 and longest_hold > 0
        and longest_delay > 0 and max_payload > 0)
);
comment on table mesh.worker_credential is 'Logins of workers in untrusted places: what each may take, and its bounds.';
comment on column mesh.worker_credential.longest_hold is 'Seconds for which one message may be held, with all extensions.';
create index worker_credential_app on mesh.worker_credential (app_id);

create table mesh.worker_mark (
    credential_id  bigint  not null,
    mark           bigint  not null,
    taken_by       xid8,
    constraint worker_mark_pk primary key (credential_id)
) with (fillfactor = 20);
comment on table mesh.worker_mark is
    'The last transaction that took work for a worker login and was committed; sequence worker_mark_<id>: the last one of all.';

create table mesh.worker_pending (
    app_id       text        not null,
    role_name    text        not null,
    topic        text        not null,
    job_id       text        not null,
    generation   uuid        not null,
    activity_id  text        not null,
    dimension    integer[]   not null,
    added        integer     not null default 0,
    final_guid   text,
    created_at   timestamptz not null,
    constraint worker_pending_pk primary key (generation, activity_id, dimension)
);
comment on table mesh.worker_pending is
    'Activities that a worker login has answered with "pending": it may add their further answers. Gone with the last one.';
comment on column mesh.worker_pending.added is 'Answers added so far.';
comment on column mesh.worker_pending.final_guid is 'The id of the last answer, until an engine has applied it.';

create table mesh.worker_credential_audit (
    id         bigint      generated always as identity,
    role_name  text        not null,
    app_id     text        not null,
    topics     text[]      not null,
    action     text        not null,
    done_by    text        not null default session_user,
    done_at    timestamptz not null default clock_timestamp(),
    constraint worker_credential_audit_pk primary key (id),
    constraint action_is_known check (action in ('provisioned', 'changed', 'rotated', 'revoked', 'terminated', 'restrained'))
);
comment on table mesh.worker_credential_audit is 'What was done to worker logins, when and by whom. Rows are only ever added.';

create function mesh.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are only added, never changed or removed', tg_table_name using errcode = '42501';
end
$$;
create trigger only_added before update or delete or truncate on mesh.worker_credential_audit
    for each statement execute function mesh.refuse_change();
