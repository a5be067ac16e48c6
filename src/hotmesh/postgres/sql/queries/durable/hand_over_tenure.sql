-- hand_over_tenure: let others have up to $3 jobs of the tenure $2 of app $1, but those taken more than $4 times in a row.
select mesh.hand_over_tenure($1, $2, $3, $4)
