-- worker_set_beside: as set_beside, for the worker login.
select mesh.worker_set_beside($1, $2, $3, $4, $5)
