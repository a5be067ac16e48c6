-- prune_messages: delete up to p_limit dead letters of one stream that are older than p_keep seconds.
-- Answered messages leave no rows; dead letters are what is left of the streams.  Returns  how many there were.
create or replace function mesh.prune_messages(p_app text, p_stream text, p_keep double precision, p_limit integer)
returns integer language sql as $$
    with old as (
        select d.id from mesh.dead_letter as d
         where d.app_id = p_app and d.stream = p_stream
           and d.dead_at <= mesh.clock() - p_keep * interval '1 second'
         limit p_limit
           for update skip locked
    ), gone as (
        delete from mesh.dead_letter as d using old as o where d.id = o.id returning 1
    )
    select count(*)::integer from gone
$$;
