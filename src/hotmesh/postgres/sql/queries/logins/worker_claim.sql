-- worker_claim: as claim_work, for the worker login.
select * from mesh.worker_claim($1, $2, $3, $4, $5, $6, $7, $8, $9)
