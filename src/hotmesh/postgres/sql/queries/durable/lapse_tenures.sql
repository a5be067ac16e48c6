-- lapse_tenures: the tenures of app $1 whose jobs are for others; those not renewed in time, of the members $2, or among $3
-- become so.
with late as (
    update mesh.tenure as t set lapsed = true
     where t.app_id = $1 and not t.lapsed
       and (t.until < mesh.clock() or t.member = any ($2::text[]) or t.tenure = any ($3::bigint[]))
    returning t.tenure
)
select t.tenure from mesh.tenure as t where t.app_id = $1 and t.lapsed
 union
select l.tenure from late as l
