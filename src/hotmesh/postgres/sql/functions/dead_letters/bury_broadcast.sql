-- bury_broadcast: a broadcast can never be carried out; keep it as a dead letter, with the reason.
create or replace function mesh.bury_broadcast(p_app text, p_broadcast bigint, p_reason text) returns void
language sql as $$
    with gone as (
        delete from mesh.broadcast as b where b.id = p_broadcast returning b.*
    )
    insert into mesh.dead_letter (
        app_id, stream, topic, job_id, generation, activity_id, dimension, message, reason, dead_at)
    select p_app, 'engine', g.topic, '', '00000000-0000-0000-0000-000000000000', '', '{}', row_to_json(g), p_reason,
           mesh.clock()
      from gone as g
$$;
