-- leave_mesh: let go of what join_mesh ($2 as there) and take_guid ($3) have taken in an app ($1).
with let_go as materialized (
    select pg_advisory_unlock_shared(mesh.member_key($1, $2)), pg_advisory_unlock(mesh.guid_key($1, $3)) as had
)
delete from mesh.member as m using let_go as l where l.had and m.app_id = $1 and m.guid = $3
