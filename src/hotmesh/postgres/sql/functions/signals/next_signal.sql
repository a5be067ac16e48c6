-- next_signal: the place of a signal that is kept under a key: behind those for durable functions, instead of the one for a hook.
-- The caller holds the key.
create or replace function mesh.next_signal(p_app text, p_topic text, p_key text) returns integer language sql stable as $$
    select case when p_topic = '$signal' then coalesce((
        select max(s.ordinal) + 1 from mesh.signal as s where s.app_id = p_app and s.topic = p_topic and s.key = p_key), 0)
    else 0 end
$$;
