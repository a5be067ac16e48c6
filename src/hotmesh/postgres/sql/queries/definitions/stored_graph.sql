-- stored_graph: a version ($2 of app $1) as it is stored.
select graph, checksum from mesh.app_version where app_id = $1 and version = $2
