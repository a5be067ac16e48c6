-- load_records: records of activities ($1 generations, $2 activities, $3 addresses).
select * from mesh.load_records($1, $2, $3)
