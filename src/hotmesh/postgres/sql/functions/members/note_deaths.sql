-- note_deaths: count the engines of an app that have died, each once.
-- Writes   died_at of their members; engine_deaths of the app: how many died one after the other, each within five minutes of the one before.
-- Returns  whether it was three or more, and the last one not longer ago than that.
create or replace function mesh.note_deaths(p_app text) returns boolean language plpgsql as $$
declare
    v_now  constant timestamptz := clock_timestamp();
    v_died integer;
begin
    with died as (
        update mesh.member as m set died_at = v_now
         where m.app_id = p_app and m.engine and m.died_at is null
           and m.guid in (select g.guid from mesh.gone_members(p_app) as g(guid))
        returning 1
    )
    select count(*) into v_died from died;
    if v_died > 0 then
        update mesh.app as a
           set engine_deaths = v_died + case when a.engine_died_at > v_now - interval '5 minutes' then a.engine_deaths else 0 end,
               engine_died_at = v_now
         where a.app_id = p_app;
    end if;
    return exists (select from mesh.app as a
                    where a.app_id = p_app and a.engine_deaths >= 3 and a.engine_died_at > v_now - interval '5 minutes');
end
$$;
