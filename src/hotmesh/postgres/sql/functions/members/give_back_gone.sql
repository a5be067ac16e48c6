-- give_back_gone: let others have what members (p_guids) hold that have died, as if their leases had lapsed: it counts as delivered.
-- Locks    guid_key of each, without waiting, until the transaction ends: who has come back meanwhile keeps what it holds. Then the
--          rows, but for those that somebody else is changing.
-- Writes   mesh.worker_stream; lapses their tenures (see hand_over_tenure); counts the engines among the members (note_deaths), and deletes them.
-- Returns  each that was gone, and how much it held.
create or replace function mesh.give_back_gone(p_app text, p_guids text[]) returns table (guid text, held bigint)
language plpgsql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_guid   text;
    v_topics text[];
begin
    perform mesh.note_deaths(p_app);
    for v_guid in select m.guid from mesh.member as m where m.app_id = p_app and m.guid = any (p_guids) order by m.guid loop
        continue when not pg_try_advisory_xact_lock(mesh.guid_key(p_app, v_guid));
        with recursive topic as (
            (select w.topic from mesh.worker_stream as w
              where w.app_id = p_app and coalesce(w.reserved_by, '') <> '' order by w.topic limit 1)
            union all
            select (select w.topic from mesh.worker_stream as w
                     where w.app_id = p_app and w.topic > t.topic and coalesce(w.reserved_by, '') <> '' order by w.topic limit 1)
              from topic as t where t.topic is not null
        ), kept as materialized (
            select k.*
              from topic as t
             cross join lateral (
                select w.ctid as place from mesh.worker_stream as w
                 where w.app_id = p_app and w.topic = t.topic and coalesce(w.reserved_by, '') <> ''
                   and w.visible_at > mesh.clock() and w.reserved_by = v_guid
                   for update skip locked) as k
             where t.topic is not null
        ), given as (
            update mesh.worker_stream as s
               set reserved_by = null,
                   visible_at = mesh.clock() + case when s.paused then interval '1000 years' else interval '0 seconds' end
              from kept as k
             where s.ctid = k.place
            returning s.topic
        )
        select array_agg(distinct g.topic), count(*) into v_topics, held from given as g;
        update mesh.tenure as t set lapsed = true where t.app_id = p_app and t.member = v_guid and not t.lapsed;
        delete from mesh.member as m where m.app_id = p_app and m.guid = v_guid;
        if v_topics is not null then
            perform mesh.wake(p_app, json_build_object('w', v_topics)::text);
        end if;
        guid := v_guid;
        return next;
    end loop;
end
$$;
