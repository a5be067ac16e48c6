-- worker_next_at: as next_work_at, for the worker login.
select mesh.worker_next_at($1, $2, $3)
