-- unknown_activities: what waits on topics $4 of app $1 that no member has; member $2 has $3.
select u.topic, u.name, u.seconds from mesh.unknown_activities($1, $2, $3, $4) as u
