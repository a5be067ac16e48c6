-- postpone_work: give work that is held back.
-- $1 app, $2 member, $3 generations, $4 activities, $5 addresses, $6 delays, $7 whether each has failed, $8 of what,
-- $9 hint, $10 what heartbeats have said.
select mesh.postpone_work($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
