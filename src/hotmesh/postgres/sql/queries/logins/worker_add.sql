-- worker_add: add an answer to an activity that waits for one.
-- $1 job, $2 generation, $3 activity, $4 address, $5 id of the answer, $6 status, $7 code, $8 data.
select mesh.worker_add($1, $2, $3, $4, $5, $6, $7, $8)
