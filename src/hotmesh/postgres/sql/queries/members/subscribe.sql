-- subscribe: member $2 of app $1 wants what is announced on topics ($3; $4: it is a pattern), for $5 seconds.
select mesh.subscribe($1, $2, $3, $4, $5)
