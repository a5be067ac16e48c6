-- answer_activity: attempt $5 of activity $2 $3 $4 of app $1 has ended, by its token: status $6, code $7, data $8; or is tried again in $9 seconds, after error $10.
select mesh.answer_activity($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
