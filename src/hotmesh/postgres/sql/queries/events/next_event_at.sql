-- next_event_at: seconds until something is due for the engines of app $1, the moment up to which nothing is left, and whether there are
-- broadcasts. $2 since when it is due, $3 within so many seconds.
select n.due, mesh.clock() + least(n.due, 0) * interval '1 second' as reached,
       exists (select from mesh.broadcast as b where b.app_id = $1) as broadcasts
  from mesh.next_event_at($1, $2, $3) as n(due)
