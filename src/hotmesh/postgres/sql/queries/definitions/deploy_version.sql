-- deploy_version: store a version ($2 of app $1): its graph ($3), its checksum ($4); $5 the hint.
select mesh.deploy_version($1, $2, $3, $4, $5)
