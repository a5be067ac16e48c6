-- guid_key_on: the key of guid_key, for who knows the channel of the app. It costs far less than to ask for that for each guid.
create or replace function mesh.guid_key_on(p_channel text, p_guid text) returns bigint language sql immutable as $$
    select hashtextextended(p_channel || '/guid/' || p_guid, 0)
$$;
