-- worker_bury: as bury_work, for the worker login.
select mesh.worker_bury($1, $2, $3, $4, $5, $6)
