-- claim_work: reserve visible work.
-- $1 app, $2 member, $3 topics, $4 the most of each, $5 lease, $6 reservation; of each topic the name that is taken ($7), and
-- names that are left to others ($8); $9 the number of the last delivery; of each topic since when it is visible ($10).
select * from mesh.claim_work($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
