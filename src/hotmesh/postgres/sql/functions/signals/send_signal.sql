-- send_signal: deliver a signal from outside a flow, and wake the engines if somebody waited.
-- p_keys   the keys it has by the rules of the deployed versions; the first one that somebody waits under counts.
--          Nobody does: it is kept under the first one, which is the active version's.
-- Locks    the signal's keys, in order.  Returns  whether somebody waited.
create or replace function mesh.send_signal(
    p_app text, p_topic text, p_keys text[], p_data text, p_status text, p_code integer, p_keep double precision,
    p_wake text
) returns boolean language plpgsql as $$
declare
    v_key text;
begin
    perform mesh.lock_signal_keys(p_app, array_fill(p_topic, array[cardinality(p_keys)]), p_keys);
    select k.key into v_key
      from unnest(p_keys) with ordinality as k(key, ordinal)
     where exists (select from mesh.wait as w where w.app_id = p_app and w.topic = p_topic and w.key = k.key)
     order by k.ordinal
     limit 1;
    if not mesh.hand_over_signal(p_app, p_topic, coalesce(v_key, p_keys[1]), p_data::json, p_status, p_code, p_keep) then
        return false;
    end if;
    if p_wake is not null then
        perform mesh.wake(p_app, p_wake);
    end if;
    return true;
end
$$;
