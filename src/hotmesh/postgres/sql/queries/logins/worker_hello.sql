-- worker_hello: what this worker login may do.
select * from mesh.worker_hello()
