-- record_rotation: a worker login ($1) has another password.
update mesh.worker_credential set rotated_at = now() where role_name = $1
