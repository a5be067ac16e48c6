-- end_turn: member $3 is done with a task ($2 of app $1) for $4 seconds.
select mesh.end_turn($1, $2, $3, $4)
