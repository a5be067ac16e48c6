-- next_work_at: seconds until work becomes visible, and the moment up to which nothing is left.
-- $1 app, $2 topics, of each the name taken ($3), names left to others ($4) and since when it is visible ($5); $6 within so many seconds.
select n.due, mesh.clock() + least(n.due, 0) * interval '1 second' as reached
  from mesh.next_work_at($1, $2, $3, $4, $5, $6) as n(due)
