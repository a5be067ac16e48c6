-- give_back_work: p_member stops; whatever it still holds of these topics is for others at once.
-- Returns  how much it was.
create or replace function mesh.give_back_work(p_app text, p_member text, p_topics text[]) returns integer
language plpgsql as $$
declare
    v_topics text[];
begin
    with given as (
        update mesh.worker_stream as s
           set reserved_by = null, visible_at = mesh.clock(), delivery = greatest(s.delivery - 1, 0)
         where s.app_id = p_app and s.topic = any (p_topics) and s.visible_at > mesh.clock()
           and s.reserved_by = p_member
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
