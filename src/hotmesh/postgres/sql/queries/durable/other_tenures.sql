-- other_tenures: the members of app $1 that have tenures, but for $2.
select distinct t.member from mesh.tenure as t where t.app_id = $1 and t.member <> $2 and not t.lapsed
