-- job_work: what workers still have to do for a job (generation $1).
select w.* from mesh.worker_stream as w where w.generation = $1 order by w.created_at
