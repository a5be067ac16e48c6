-- record_login: a worker login ($1) serves topics ($3) of an app ($2) from now on, within bounds ($4 to $8); one that was
-- revoked is valid again.
insert into mesh.worker_credential (
    role_name, app_id, topics, most_held, longest_lease, longest_hold, longest_delay, max_payload)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict on constraint worker_credential_role do update
   set app_id = excluded.app_id, topics = excluded.topics, most_held = excluded.most_held,
       longest_lease = excluded.longest_lease, longest_hold = excluded.longest_hold,
       longest_delay = excluded.longest_delay, max_payload = excluded.max_payload, revoked_at = null,
       rotated_at = now()
