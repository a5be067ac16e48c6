-- take_turn: begin or go on with a task ($2 of app $1) as member $3, for $4 seconds.
select mesh.take_turn($1, $2, $3, $4)
