-- gone_rows: of rows that steps are to delete, the positions (from 1) of those that are not there.
-- $1 kinds (message, work, timer), $2 generations, $3 activities, $4 addresses, $5 ids of messages, $6 who holds the work,
-- $7 by which reservation (null: any). Work that is held otherwise counts as gone.
select w.position
  from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])
       with ordinality as w(kind, generation, activity, dimension, message, holder, reservation, position)
 where not exists (
        select from mesh.engine_stream as s
         where w.kind = 'message' and s.generation = any (array[w.generation]) and s.message_id = w.message)
   and not exists (
        select from mesh.worker_stream as s
         where w.kind = 'work' and s.generation = any (array[w.generation]) and s.activity_id = w.activity
           and s.dimension = w.dimension::integer[] and s.reserved_by = w.holder
           and (w.reservation is null or s.reservation = w.reservation))
   and not exists (
        select from mesh.timer as s
         where w.kind = 'timer' and s.generation = any (array[w.generation]) and s.activity_id = w.activity
           and s.dimension = w.dimension::integer[])
