-- worker_answer: as answer_work, for the worker login.
select mesh.worker_answer($1, $2, $3, $4, $5, $6, $7)
