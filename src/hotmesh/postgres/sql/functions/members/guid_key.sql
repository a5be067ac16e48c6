-- guid_key: the key of the advisory lock that the listening connection of one instance holds, alone, while it lives. So two
-- that run at once cannot have one guid, and one that was killed has let go of it.
create or replace function mesh.guid_key(p_app text, p_guid text) returns bigint language sql stable as $$
    select mesh.guid_key_on(mesh.channel(p_app), p_guid)
$$;
