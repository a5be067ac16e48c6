-- queue_depth: how much of an app ($1) waits, by stream and topic, and for how long the oldest of it has been ready.
-- Counts at most 100,000 rows of each kind, by index: a figure for a graph, asked for a few times a minute.
-- ready: can be taken now; held: reserved by a process; delayed: for later (a retry, a timer that sleeps).
with moment as materialized (
    select mesh.clock() as now
), work as materialized (
    select * from (
        select s.topic, s.visible_at, s.reserved_by from mesh.worker_stream as s where s.app_id = $1 and coalesce(s.reserved_by, '') <> ''
         union all
        select s.topic, s.visible_at, s.reserved_by from mesh.worker_stream as s where s.app_id = $1 and coalesce(s.reserved_by, '') = ''
    ) as s limit 100000
), message as materialized (
    select s.visible_at from mesh.engine_stream as s where s.app_id = $1 limit 100000
), sleeper as materialized (
    select t.due_at from mesh.timer as t where t.app_id = $1 order by t.due_at limit 100000
), dead as materialized (
    select d.stream from mesh.dead_letter as d where d.app_id = $1 limit 100000
)
select 'worker' as stream, w.topic,
       count(*) filter (where w.visible_at <= m.now) as ready,
       count(*) filter (where w.visible_at > m.now and w.reserved_by is not null) as held,
       count(*) filter (where w.visible_at > m.now and w.reserved_by is null) as delayed,
       coalesce(extract(epoch from max(m.now - w.visible_at) filter (where w.visible_at <= m.now)), 0)::float8 as oldest
  from work as w cross join moment as m group by w.topic
union all
select 'engine', '', count(*) filter (where s.visible_at <= m.now), 0, count(*) filter (where s.visible_at > m.now),
       coalesce(extract(epoch from max(m.now - s.visible_at) filter (where s.visible_at <= m.now)), 0)::float8
  from message as s cross join moment as m
union all
select 'timer', '', count(*) filter (where t.due_at <= m.now), 0, count(*) filter (where t.due_at > m.now),
       coalesce(extract(epoch from max(m.now - t.due_at) filter (where t.due_at <= m.now)), 0)::float8
  from sleeper as t cross join moment as m
union all
select 'dead', d.stream, count(*), 0, 0, 0 from dead as d group by d.stream
