-- worker_next_at: as next_work_at, for the worker login.
select n.due, now() + least(n.due, 0) * interval '1 second' as reached
  from mesh.worker_next_at($1, $2, $3, $4, $5) as n(due)
