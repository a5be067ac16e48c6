-- give_back_work: let everybody have the work of topics ($3 of app $1) that member $2 holds, all or by reservations ($4).
select mesh.give_back_work($1, $2, $3, $4)
