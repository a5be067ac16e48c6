-- count_members: how many engines, and how many members in all, an app ($1) has.
select count(*) filter (where m.engine) as engines, count(*) as members
  from mesh.member as m
 where m.app_id = $1 and m.died_at is null
