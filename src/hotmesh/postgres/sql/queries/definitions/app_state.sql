-- app_state: epoch and active version of an app ($1).
select epoch, active_version from mesh.app where app_id = $1
