-- bury_broadcast: move a broadcast ($2 of app $1) to the dead letters, with the reason ($3).
select mesh.bury_broadcast($1, $2, $3)
