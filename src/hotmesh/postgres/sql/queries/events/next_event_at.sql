-- next_event_at: seconds until something is due for the engines of app $1, and whether there are broadcasts.
select mesh.next_event_at($1) as due, exists (select from mesh.broadcast as b where b.app_id = $1) as broadcasts
