-- wait_again: register hooks (rows of mesh.wait, as JSON) for their signals once more.
-- Locks    their signal keys.  Writes  mesh.wait; signals that came meanwhile are handed over at once.
create or replace function mesh.wait_again(p_app text, p_waits json) returns void language plpgsql as $$
declare
    v_topics text[];
    v_keys   text[];
begin
    select array_agg(w.topic), array_agg(w.key) into v_topics, v_keys
      from json_populate_recordset(null::mesh.wait, p_waits) as w;
    if v_topics is null then
        return;
    end if;
    perform mesh.lock_signal_keys(p_app, v_topics, v_keys);
    insert into mesh.wait (app_id, job_id, generation, activity_id, dimension, topic, key, created_at)
    select w.app_id, w.job_id, w.generation, w.activity_id, w.dimension, w.topic, w.key, w.created_at
      from json_populate_recordset(null::mesh.wait, p_waits) as w;
    perform mesh.take_early_signals(p_app, v_topics, v_keys);
end
$$;
