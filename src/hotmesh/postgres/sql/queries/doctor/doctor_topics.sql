-- doctor_topics: the work of an app ($1) by topic: how much can be taken, for how many seconds, and how much is held.
select w.topic, count(*) filter (where w.visible_at <= mesh.clock()) as ready,
       count(*) filter (where w.visible_at > mesh.clock() and w.reserved_by is not null) as held,
       coalesce(extract(epoch from mesh.clock() - min(w.visible_at) filter (where w.visible_at <= mesh.clock())), 0)
           ::double precision as oldest
  from mesh.worker_stream as w where w.app_id = $1 group by w.topic order by w.topic
