-- give_back_work: whatever p_member still holds of these topics is for everybody at once, because it stops; or, with
-- p_reservations, what those claims and commits reserved, of which it never heard the answer.
-- Returns  how much it was.
create or replace function mesh.give_back_work(p_app text, p_member text, p_topics text[], p_reservations bigint[] default null)
returns integer language plpgsql as $$
declare
    v_topics text[];
begin
    with given as (
        update mesh.worker_stream as s
           set reserved_by = null, delivery = greatest(s.delivery - 1, 0),
               visible_at = mesh.clock() + case when s.paused then interval '1000 years' else interval '0 seconds' end,
               -- Whoever ran it alone has not died of it.
               beside = case when s.beside = false then true else s.beside end
         where s.app_id = p_app and s.topic = any (p_topics) and coalesce(s.reserved_by, '') <> '' and s.visible_at > mesh.clock()
           and s.reserved_by = p_member and (p_reservations is null or s.reservation = any (p_reservations))
        returning s.topic
    )
    select array_agg(g.topic) into v_topics from given as g;
    if v_topics is null then
        return 0;
    end if;
    perform mesh.wake(p_app, json_build_object('w', v_topics)::text);
    return cardinality(v_topics);
end
$$;
