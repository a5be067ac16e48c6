-- renew_tenures: those of $1 that have not lapsed, for another $2 seconds; their numbers.
update mesh.tenure as t set until = mesh.clock() + $2 * interval '1 second'
 where t.tenure = any ($1) and not t.lapsed
returning t.tenure
