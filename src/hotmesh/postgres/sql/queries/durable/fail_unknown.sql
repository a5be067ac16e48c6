-- fail_unknown: what waits on topic $2 of app $1 under name $3 for $4 seconds is answered by error $5.
select mesh.fail_unknown($1, $2, $3, $4, $5)
