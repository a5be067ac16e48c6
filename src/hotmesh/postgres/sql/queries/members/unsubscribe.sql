-- unsubscribe: member $2 of app $1 wants topics ($3; $4: it is a pattern) no more; $5: nothing at all.
delete from mesh.subscription as s
 where s.app_id = $1 and s.member = $2
   and ($5 or exists (
        select from unnest($3::text[], $4::boolean[]) as t(topic, by_pattern)
         where t.topic = s.topic and t.by_pattern = s.by_pattern))
