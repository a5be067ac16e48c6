-- throttles: the rates of an app ($1).
select * from mesh.throttles($1)
