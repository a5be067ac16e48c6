-- work_depths: how much work of some topics ($2) of an app ($1) there is, waiting or reserved; none for topics without any.
select w.topic, count(*) as depth
  from mesh.worker_stream as w
 where w.app_id = $1 and w.topic = any ($2)
 group by w.topic
