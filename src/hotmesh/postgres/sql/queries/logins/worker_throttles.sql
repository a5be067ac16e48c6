-- worker_throttles: the rates of the app of this worker login; $1 is of no use.
select * from mesh.worker_throttles() where $1::text is not null
