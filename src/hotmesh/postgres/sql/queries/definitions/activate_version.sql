-- activate_version: make a version ($2) of an app ($1), stored with a checksum ($3), the active one, and tell members ($4).
select mesh.activate_version($1, $2, $3, $4)
