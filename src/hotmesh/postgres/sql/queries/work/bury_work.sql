-- bury_work: move work that is held to the dead letters.
-- $1 app, $2 member, $3 generation, $4 activity, $5 address, $6 reason, $7 the error that answers it, $8 hint.
select mesh.bury_work($1, $2, $3, $4, $5, $6, $7, $8)
