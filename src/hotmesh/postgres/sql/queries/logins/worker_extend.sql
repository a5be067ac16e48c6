-- worker_extend: as extend_work, for the worker login.
select mesh.worker_extend($1, $2, $3, $4, $5)
