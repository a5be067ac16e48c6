-- count_open_entity: what still has to be done for the jobs of an app ($1) about one entity ($2): unfinished jobs, and rows
-- of work, messages, timers and waits.
with asked as materialized (
    select j.generation, j.status from mesh.job as j where j.app_id = $1 and j.entity = $2
)
select (select count(*) from asked where status > 0)
     + (select count(*) from mesh.worker_stream as s where s.generation in (select generation from asked))
     + (select count(*) from mesh.engine_stream as s where s.generation in (select generation from asked))
     + (select count(*) from mesh.timer as s where s.generation in (select generation from asked))
     + (select count(*) from mesh.wait as s where s.generation in (select generation from asked))
       as number
