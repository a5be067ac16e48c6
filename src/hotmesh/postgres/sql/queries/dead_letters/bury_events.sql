-- bury_events: keep what is open of a job ($2 of app $1, generation $3) as a dead letter, and $4, why.
select mesh.bury_events($1, $2, $3, $4)
