-- prune: delete a batch of what is over in an app ($1); the rest is told by Selection.
select * from mesh.prune($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
