-- count_due: note that what is due of up to $2 jobs of app $1 is taken, which may be $3 times.
select * from mesh.count_due($1, $2, $3)
