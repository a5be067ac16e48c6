-- next_broadcast: lock the oldest broadcast of app $1 that no other engine is carrying out.
select id, topic, facet, query, data from mesh.broadcast where app_id = $1 order by id limit 1 for update skip locked
