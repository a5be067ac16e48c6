-- checksums: the checksum of every version of an app ($1).
select version, checksum from mesh.app_version where app_id = $1
