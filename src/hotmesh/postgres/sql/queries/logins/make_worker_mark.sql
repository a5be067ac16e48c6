-- make_worker_mark: let the work that a worker login ($1) takes be marked.
select mesh.make_worker_mark($1)
