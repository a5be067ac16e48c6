-- hand_over_activity: activity $2 $3 $4 of member $1 is ended by its token; after $5 seconds limit $6 ends it. $7 what heartbeats have said.
select mesh.hand_over_activity($1, $2, $3, $4, $5, $6, $7)
