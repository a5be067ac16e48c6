-- find_login: what a role ($1) is recorded to serve, if it is a worker login.
select app_id, topics from mesh.worker_credential where role_name = $1
