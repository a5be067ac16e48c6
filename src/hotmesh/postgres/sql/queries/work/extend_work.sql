-- extend_work: member $1 goes on holding work ($2 generations, $3 activities, $4 addresses) for $5 seconds; $6 what heartbeats say.
select mesh.extend_work($1, $2, $3, $4, $5, $6)
