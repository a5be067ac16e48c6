-- grant_worker: let a worker login ($1) use the namespace, its procedures, and nothing else of it.
select mesh.grant_worker($1)
