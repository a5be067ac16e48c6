-- discard_dead_letter: remove a dead letter ($2) of an app ($1) for good.
delete from mesh.dead_letter as d where d.app_id = $1 and d.id = $2 returning d.id
