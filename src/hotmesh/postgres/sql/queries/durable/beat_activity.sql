-- beat_activity: attempt $4 of activity $1 $2 $3 is alive, by its token; $5 seconds between two heartbeats, $6 its end, $7 what it says.
select mesh.beat_activity($1, $2, $3, $4, $5, $6, $7)
