-- next_event_at: seconds until the next message or timer of the app is due, or null if there is none.
create or replace function mesh.next_event_at(p_app text) returns double precision language sql stable as $$
    select extract(epoch from least(
        (select s.visible_at from mesh.engine_stream as s where s.app_id = p_app order by s.visible_at limit 1),
        (select t.due_at from mesh.timer as t where t.app_id = p_app order by t.due_at limit 1)
    ) - mesh.clock())::double precision
$$;
