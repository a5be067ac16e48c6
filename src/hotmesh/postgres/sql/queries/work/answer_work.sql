-- answer_work: exchange work that is held for answers, for every engine.
-- $1 app, $2 member, $3 generations, $4 activities, $5 addresses, $6 statuses, $7 codes, $8 data, $9 hint.
select mesh.answer_work($1, $2, $3, $4, $5, $6, $7, $8, $9, p_tell => false)
