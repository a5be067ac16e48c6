-- give_back_gone: let others have what members ($2) of an app ($1) hold that have died; which of them had, and how much each held.
select * from mesh.give_back_gone($1, $2)
