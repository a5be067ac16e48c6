-- leave_mesh: let go of what join_mesh ($2 as there) and take_guid ($3) have taken in an app ($1).
select pg_advisory_unlock_shared(mesh.member_key($1, $2)), pg_advisory_unlock(mesh.guid_key($1, $3))
