-- record_action: keep what ($2) was done to a worker login ($1).
insert into mesh.worker_credential_audit (role_name, app_id, topics, action)
select c.role_name, c.app_id, c.topics, $2 from mesh.worker_credential as c where c.role_name = $1
