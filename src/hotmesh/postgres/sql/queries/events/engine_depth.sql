-- engine_depth: how many messages for engines an app ($1) has, waiting or put off.
select count(*) as depth from mesh.engine_stream as m where m.app_id = $1
