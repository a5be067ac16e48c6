-- history: what is recorded of durable functions (generations $1), at most $5 rows after the key $2, $3, $4.
select * from mesh.history($1, $2, $3, $4, $5)
