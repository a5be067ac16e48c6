-- lock_due_jobs: lock up to $2 jobs of app $1 that have messages or due timers; their rows, and what is due; only of the generations $3.
select (d.job).*, d.events from mesh.lock_due_jobs($1, $2, $3) as d
