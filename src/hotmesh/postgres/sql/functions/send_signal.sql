-- send_signal: deliver a signal from outside a flow, and wake the engines if somebody waited.
-- Locks    the signal's key.  Returns  whether somebody waited.
create or replace function mesh.send_signal(
    p_app text, p_topic text, p_key text, p_data text, p_status text, p_code integer, p_keep double precision,
    p_wake text
) returns boolean language plpgsql as $$
declare
    v_met boolean;
begin
    perform mesh.lock_signal_keys(p_app, array[p_topic], array[p_key]);
    v_met := mesh.hand_over_signal(p_app, p_topic, p_key, p_data::json, p_status, p_code, p_keep);
    if v_met and p_wake is not null then
        perform pg_notify(mesh.channel(p_app), p_wake);
    end if;
    return v_met;
end
$$;
