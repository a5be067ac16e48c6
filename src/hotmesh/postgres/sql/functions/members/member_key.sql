-- member_key: the key of the advisory lock that every listening connection of an app holds, shared, while it lives.
-- So pg_locks says who is there, without a row that would have to be renewed; a process that dies is gone with its
-- connection. Members with an engine (p_engine) and those without hold different keys.
create or replace function mesh.member_key(p_app text, p_engine boolean) returns bigint language sql stable as $$
    select (hashtextextended(mesh.channel(p_app), 0) & ~1::bigint) | p_engine::integer
$$;
