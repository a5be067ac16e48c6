-- next_work_at: seconds until work becomes visible.
-- $1 app, $2 topics, of each the name taken ($3) and names left to others ($4).
select mesh.next_work_at($1, $2, $3, $4)
