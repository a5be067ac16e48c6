-- record_revocation: a worker login ($1) is over; the first time counts.
update mesh.worker_credential set revoked_at = coalesce(revoked_at, now()) where role_name = $1
