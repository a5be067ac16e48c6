-- worker_postpone: as postpone_work, for the worker login.
select mesh.worker_postpone($1, $2, $3, $4, $5, $6, $7)
