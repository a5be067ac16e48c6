-- free_expired_ids: remove jobs ($2 of app $1) whose time is over; how many there were.
select mesh.free_expired_ids($1, $2)
