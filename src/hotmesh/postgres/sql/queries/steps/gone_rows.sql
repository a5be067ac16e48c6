-- gone_rows: of rows that steps are to delete, the positions (from 1) of those that are not there.
-- $2 kinds (message, work, timer), $3 generations, $4 activities, $5 addresses, $6 ids of messages. Work that is not held by
-- member $1 counts as gone.
select w.position
  from unnest($2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[])
       with ordinality as w(kind, generation, activity, dimension, message, position)
 where not exists (
        select from mesh.engine_stream as s
         where w.kind = 'message' and s.generation = any (array[w.generation]) and s.message_id = w.message)
   and not exists (
        select from mesh.worker_stream as s
         where w.kind = 'work' and s.generation = any (array[w.generation]) and s.activity_id = w.activity
           and s.dimension = w.dimension::integer[] and s.reserved_by = $1)
   and not exists (
        select from mesh.timer as s
         where w.kind = 'timer' and s.generation = any (array[w.generation]) and s.activity_id = w.activity
           and s.dimension = w.dimension::integer[])
