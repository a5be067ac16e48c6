-- try_start_job: create a job in a transaction that is open; the arguments are added in the way of its driver.
select outcome, version from mesh.try_start_job
