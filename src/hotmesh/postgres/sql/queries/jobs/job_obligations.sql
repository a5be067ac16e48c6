-- job_obligations: what a job (generation $1) waits for, the oldest first.
select o.* from mesh.obligations($1) as o order by o.since, o.activity_id
