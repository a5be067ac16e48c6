-- find_version: the stored form of one version ($2) of an app ($1).
select v.graph from mesh.app_version as v where v.app_id = $1 and v.version = $2
