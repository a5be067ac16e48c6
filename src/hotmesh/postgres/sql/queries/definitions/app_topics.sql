-- app_topics: the topics of an app ($1), those that start graphs ($2 = 'graph') or those of work ($2 = 'work'), which are also the ones of
-- queued work and of dead letters. One that a graph computes begins with a brace.
select g ->> 'subscribes' as topic
  from mesh.app_version as v
 cross join lateral json_array_elements(v.graph -> 'document' -> 'app' -> 'graphs') as g
 where v.app_id = $1 and $2 = 'graph' and g ->> 'subscribes' is not null
 union
select a.value ->> 'topic'
  from mesh.app_version as v
 cross join lateral json_array_elements(v.graph -> 'document' -> 'app' -> 'graphs') as g
 cross join lateral json_each(g -> 'activities') as a
 where v.app_id = $1 and $2 = 'work' and a.value ->> 'type' = 'worker' and a.value ->> 'topic' is not null
 union
select w.topic from mesh.worker_stream as w where w.app_id = $1 and $2 = 'work'
 union
select d.topic from mesh.dead_letter as d where d.app_id = $1 and $2 = 'work'
