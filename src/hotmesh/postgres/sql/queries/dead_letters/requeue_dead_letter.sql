-- requeue_dead_letter: bring a dead letter ($2 of app $1) back.
-- $3 seq that its job is expected to have, $4 whether the job is reopened, with $5 its error and $6 its open branches; $7 hint.
select mesh.requeue_dead_letter($1, $2, $3, $4, $5, $6, $7)
