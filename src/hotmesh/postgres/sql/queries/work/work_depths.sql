-- work_depths: how much work of some topics ($2) of an app ($1) there is, waiting or reserved; none for topics without any.
select w.topic, count(*) as depth
  from (select s.topic from mesh.worker_stream as s where s.app_id = $1 and s.topic = any ($2) and coalesce(s.reserved_by, '') = ''
         union all
        select s.topic from mesh.worker_stream as s where s.app_id = $1 and s.topic = any ($2) and coalesce(s.reserved_by, '') <> '') as w
 group by w.topic
