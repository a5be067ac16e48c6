-- lock_due_jobs: lock up to $2 jobs of app $1 that have messages or timers that became due since $4; their rows, and what is due; only
-- of the generations $3; those that are held only by the tenures $5.
select (d.job).*, d.events, d.due_at from mesh.lock_due_jobs($1, $2, $3, $4, $5) as d
