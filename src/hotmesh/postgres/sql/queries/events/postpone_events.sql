-- postpone_events: the events of a job (generation $2 of app $1) could not be handled: again after $3 seconds.
-- $4 the most tries.
select mesh.postpone_events($1, $2, $3, $4)
