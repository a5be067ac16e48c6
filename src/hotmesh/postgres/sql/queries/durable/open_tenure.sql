-- open_tenure: a tenure for member $2 of app $1, for $3 seconds; its number.
insert into mesh.tenure (app_id, member, until) values ($1, $2, mesh.clock() + $3 * interval '1 second') returning tenure
