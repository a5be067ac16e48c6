-- send_calls: send what callers ask of jobs of app $1: messages $2 with $3, signals $4 with $5; $6 the hint.
select * from mesh.send_calls($1, $2, $3, $4, $5, $6)
