-- send_signals: carry out a broadcast: one signal to each key, all or none, and the broadcast is done.
-- Locks    the signal keys, in order.  Returns  how many waited.
create or replace function mesh.send_signals(
    p_app text, p_topic text, p_keys text[], p_data text[], p_keep double precision, p_broadcast bigint, p_wake text
) returns integer language plpgsql as $$
declare
    v_count integer := 0;
begin
    perform mesh.lock_signal_keys(p_app, array_fill(p_topic, array[cardinality(p_keys)]), p_keys);
    for v_at in 1 .. cardinality(p_keys) loop
        if mesh.hand_over_signal(p_app, p_topic, p_keys[v_at], p_data[v_at]::json, 'success', 200, p_keep) then
            v_count := v_count + 1;
        end if;
    end loop;
    delete from mesh.broadcast where id = p_broadcast;
    if v_count > 0 then
        perform mesh.wake(p_app, p_wake);
    end if;
    return v_count;
end
$$;
