-- delay_events: leave the due events of a job (generation $2 of app $1) alone for $3 seconds.
select mesh.delay_events($1, $2, $3)
