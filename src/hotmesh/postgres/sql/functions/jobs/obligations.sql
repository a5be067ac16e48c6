-- obligations: what a job waits for, one row for each obligation that a row outside of it stands for.
-- `name` is the topic of work or of a signal, the kind of a message, the id of a child; `key` the workflow name of work, the
-- key of a signal; empty where there is none. `until` is when something happens by itself: a lease lapses, a retry or a timer is due.
-- `error` is what the last failed attempt of work raised, as stored.
-- `beside`: whether work runs beside other work of its process, false: alone.
-- A child that has answered (early by `persist`, or with an error) and goes on keeps nobody.
-- Reads    worker_stream, engine_stream, timer, wait, job, activity, by their indexes.
-- Returns  the rows, in no particular order. Inlined where it stands in FROM: a condition on `kind` leaves one branch.
create or replace function mesh.obligations(p_generation uuid) returns table (
    kind text, activity_id text, dimension integer[], name text, key text, since timestamptz, until timestamptz,
    held_by text, attempt integer, delivery integer, status integer, error text,
    beside boolean
) language sql stable as $$
    select 'work', w.activity_id, w.dimension, w.topic, w.workflow_name, w.created_at, w.visible_at,
           w.reserved_by, w.attempt, w.delivery, null::integer, w.last_error, w.beside
      from mesh.worker_stream as w where w.generation = p_generation
     union all
    select 'message', m.activity_id, m.dimension, m.kind, '', m.created_at, m.visible_at, null, m.attempt, m.delivery, null, null, null
      from mesh.engine_stream as m where m.generation = p_generation
     union all
    select 'timer', t.activity_id, t.dimension, '', '', t.set_at, t.due_at, null, t.attempt, t.delivery, null, null, null
      from mesh.timer as t where t.generation = p_generation
     union all
    select 'signal', h.activity_id, h.dimension, h.topic, h.key, h.created_at, null, null, 0, 0, null, null, null
      from mesh.wait as h where h.generation = p_generation
     union all
    select 'child', c.parent_activity, c.parent_dimension, c.job_id, '', c.created_at, null, null, 0, 0, c.status, null, null
      from mesh.job as c
     where c.parent_generation = p_generation and not c.severed and c.status > 0
       and not exists (select from mesh.activity as a
                        where a.generation = p_generation and a.activity_id = c.parent_activity
                          and a.dimension = c.parent_dimension and a.state = 'closed')
$$;
