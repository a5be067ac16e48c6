-- Views for people who write SQL: job_status, job_timeline, open_work, retrying, sleeping, waiting. See docs/sql.md.
--
-- Each is a plain join or union on indexed columns, so that a filter on app_id, job_id or topic reaches the tables.
-- sleeping and waiting say `generation >= … and <= …` for equality: either table can be looked up by the other, and
-- the planner, which takes each equality for a further filter, does not believe that a join leaves next to nothing.
-- What nobody has of worker_stream and what somebody has are in indexes of their own, so both are asked.
-- Addresses are text (0/0/1), spans of time are intervals, and what can be said in a word is one.

-- Postgres cannot take JSON with a NUL character apart; one such job must not fail a query on all of them.
create function mesh.error_field(p_error json, p_field text) returns text language sql immutable as $$
    select case when p_error is null then null
                when strpos(p_error::text, chr(92) || 'u0000') > 0 then p_error::text
                else p_error ->> p_field end
$$;
comment on function mesh.error_field is 'A member of an error as text; the whole error, if it cannot be taken apart.';

-- As `hotmesh status` has it.
create function mesh.error_words(p_error json) returns text language sql immutable as $$
    select case when mesh.error_field(p_error, 'message') = p_error::text then p_error::text
                when mesh.error_field(p_error, 'type') is null then mesh.error_field(p_error, 'message')
                when mesh.error_field(p_error, 'message') in ('unknown', mesh.error_field(p_error, 'type'))
                    then mesh.error_field(p_error, 'type')
                else mesh.error_field(p_error, 'type') || ': ' || mesh.error_field(p_error, 'message') end
$$;
comment on function mesh.error_words is 'What an error is and says: its type, if it has one, and its message.';

-- A part of the queries as well, for which it is inlined. A durable function (p_queue) that has ended otherwise than by
-- returning is below 0, whatever ended it: that is in its error. Where that is encoded, nothing more is known.
create function mesh.job_state(p_status integer, p_error json, p_queue text default null) returns text language sql immutable as $$
    select case when p_status > 0 then 'running'
                when p_status = -1 then 'pending'
                when p_status < 0 and p_queue is not null and mesh.error_field(p_error, 'code') <> '410'
                 and coalesce(mesh.error_field(p_error, 'type'), '') not in ('CancelledFailure', 'CancelledError') then 'failed'
                when p_status < 0 then 'interrupted'
                when p_error is not null then 'failed'
                else 'complete' end
$$;
comment on function mesh.job_state is 'What the status and the error of a job amount to, in a word.';

-- The views need the clock before the stored functions are loaded; this is the same one.
create or replace function mesh.clock() returns timestamptz language sql stable as $$
    select coalesce(nullif(current_setting('hotmesh.now', true), '')::timestamptz, statement_timestamp())
$$;

create view mesh.job_status as
select j.app_id, j.job_id, j.topic, j.version,
       case when j.expires_at <= mesh.clock() then 'expired'
            else mesh.job_state(j.status, j.error, j.queue) end as state,
       greatest(j.status, 0) as open_obligations,
       mesh.error_field(j.error, 'code') as error_code, mesh.error_words(j.error) as error_message,
       nullif(mesh.error_field(j.error, 'activity'), j.error::text) as error_activity,
       substring(mesh.error_field(j.error, 'attempt') from '^[0-9]{1,9}$')::integer as error_attempt,
       j.job_key, j.entity, j.cancelled, j.seq as steps,
       j.created_at, j.updated_at, j.ended_at, j.expires_at,
       coalesce(j.ended_at, mesh.clock()) - j.created_at as duration,
       case when j.ended_at is null then mesh.clock() - j.updated_at end as idle,
       j.parent_job_id, j.parent_activity, j.input, j.data, j.search, j.trace_id, j.generation
  from mesh.job as j;
comment on view mesh.job_status is
    'One row for each job: its state in a word, how long it took or has been taking, its error.';
comment on column mesh.job_status.state is
    'running, pending, complete, failed (complete with an error), interrupted (or given up, or cancelled), expired (gone)';
comment on column mesh.job_status.duration is 'From its creation to its end, or until now.';
comment on column mesh.job_status.idle is 'Since its last step; null once it has ended.';

create view mesh.job_timeline as
select j.app_id, j.job_id, null::text as activity_id, '0' as address, 'job' as type,
       case when j.ended_at is null then 'open' else 'closed' end as state,
       null::integer as code,
       j.created_at as started_at, j.ended_at,
       interval '0' as started_after,
       coalesce(j.ended_at, mesh.clock()) - j.created_at as duration,
       j.data as output, null::json as signal, j.error, null::integer as failures, j.generation
  from mesh.job as j
 union all
select j.app_id, j.job_id, a.activity_id, array_to_string(a.dimension, '/'), a.type, a.state, a.code,
       a.started_at, a.ended_at, a.started_at - j.created_at,
       coalesce(a.ended_at, mesh.clock()) - a.started_at, a.output, a.hook, a.error,
       coalesce(a.attempt, 0), j.generation
  from mesh.job as j
  join mesh.activity as a on a.generation = j.generation
 union all
select j.app_id, j.job_id, w.activity_id, array_to_string(w.dimension, '/'), 'worker', 'queued', null,
       w.created_at, null, w.created_at - j.created_at, mesh.clock() - w.created_at, null, null,
       to_json(w.last_error), w.attempt, j.generation
  from mesh.job as j
  join mesh.worker_stream as w on w.generation = j.generation
 union all
select j.app_id, j.job_id, o.name, o.strand || '/' || o.position, o.kind, o.status, null,
       coalesce(o.started_at, o.ended_at), o.ended_at, coalesce(o.started_at, o.ended_at) - j.created_at,
       o.ended_at - o.started_at, o.result, null, o.error, coalesce(o.attempt, 1) - 1, j.generation
  from mesh.job as j
  join mesh.operation as o on o.generation = j.generation;
comment on view mesh.job_timeline is
    'What a job did: a row for the job, for each pass of an activity that left a record, for each operation of a durable function that has an outcome, and for each queued work.';
comment on column mesh.job_timeline.started_after is 'Since the job was created; order by it.';
comment on column mesh.job_timeline.failures is 'Attempts that failed; the error of queued work is that of the last one.';
comment on column mesh.job_timeline.duration is 'From start to end, or until now.';

create view mesh.open_work as
select w.app_id, w.topic,
       count(*) as total,
       count(*) filter (where w.visible_at <= mesh.clock()) as ready,
       count(*) filter (where w.visible_at > mesh.clock() and w.reserved_by is not null) as held,
       count(*) filter (where w.visible_at > mesh.clock() and w.reserved_by is null) as scheduled,
       count(*) filter (where w.attempt > 0) as retried,
       count(distinct w.reserved_by) filter (where w.visible_at > mesh.clock()) as workers,
       min(w.created_at) as oldest_at,
       mesh.clock() - min(w.created_at) as oldest_age,
       mesh.clock() - min(w.visible_at) filter (where w.visible_at <= mesh.clock()) as longest_wait
  from (select h.app_id, h.topic, h.visible_at, h.reserved_by, h.attempt, h.created_at
          from mesh.worker_stream as h where coalesce(h.reserved_by, '') = ''
         union all
        select h.app_id, h.topic, h.visible_at, h.reserved_by, h.attempt, h.created_at
          from mesh.worker_stream as h where coalesce(h.reserved_by, '') <> '') as w
 group by w.app_id, w.topic;
comment on view mesh.open_work is 'The queue of each worker topic: how deep it is, and how old.';
comment on column mesh.open_work.ready is 'May be taken now.';
comment on column mesh.open_work.held is 'With a worker.';
comment on column mesh.open_work.scheduled is 'Waits for its next try.';
comment on column mesh.open_work.workers is 'Processes that hold some of it.';
comment on column mesh.open_work.longest_wait is
    'For how long the first in line could have been taken; null if nothing is ready.';

create view mesh.retrying as
select w.app_id, j.job_id, j.topic as job_topic, w.activity_id, array_to_string(w.dimension, '/') as address,
       w.topic, w.attempt as failures, w.last_error,
       case when w.reserved_by is null then w.visible_at end as next_at,
       case when w.visible_at > mesh.clock() then w.reserved_by end as held_by,
       w.created_at as since
  from (select h.app_id, h.job_id, h.generation, h.activity_id, h.dimension, h.topic, h.visible_at, h.reserved_by, h.attempt,
               h.last_error, h.created_at
          from mesh.worker_stream as h where coalesce(h.reserved_by, '') = ''
         union all
        select h.app_id, h.job_id, h.generation, h.activity_id, h.dimension, h.topic, h.visible_at, h.reserved_by, h.attempt,
               h.last_error, h.created_at
          from mesh.worker_stream as h where coalesce(h.reserved_by, '') <> '') as w
  join mesh.job as j on j.app_id = w.app_id and j.job_id = w.job_id and j.generation = w.generation
 where w.attempt > 0;
comment on view mesh.retrying is 'Work that has failed and is tried again, with the error of its last attempt.';
comment on column mesh.retrying.next_at is 'When it may be tried again; null while a worker has it.';

create view mesh.sleeping as
select t.app_id, j.job_id, j.topic as job_topic, t.activity_id, array_to_string(t.dimension, '/') as address,
       t.due_at, t.due_at - mesh.clock() as due_in, t.set_at as since, t.attempt as failures
  from mesh.timer as t
  join mesh.job as j on j.app_id = t.app_id and j.job_id = t.job_id
   and t.generation >= j.generation and t.generation <= j.generation;
comment on view mesh.sleeping is 'What sleeps, and until when.';
comment on column mesh.sleeping.due_in is 'Negative: it is late by that much.';

create view mesh.waiting as
select w.app_id, j.job_id, j.topic as job_topic, w.activity_id, array_to_string(w.dimension, '/') as address,
       w.topic as signal_topic, w.key as signal_key, w.created_at as since, mesh.clock() - w.created_at as waiting_for
  from mesh.wait as w
  join mesh.job as j on j.app_id = w.app_id and j.job_id = w.job_id
   and w.generation >= j.generation and w.generation <= j.generation;
comment on view mesh.waiting is 'Hooks that wait for a signal; the oldest under a topic and key gets the next one.';
