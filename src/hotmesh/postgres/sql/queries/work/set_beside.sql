-- set_beside: whether other work runs beside work that is held.
-- $1 member, $2 generation, $3 activity, $4 address, $5 whether.
select mesh.set_beside($1, $2, $3, $4, $5)
