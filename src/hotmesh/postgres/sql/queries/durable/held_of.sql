-- held_of: which of the jobs $1, by generation, the tenures $2 hold.
select j.generation from mesh.job as j
 where j.tenure = any ($2) and j.held and j.status > 0 and j.generation = any ($1)
