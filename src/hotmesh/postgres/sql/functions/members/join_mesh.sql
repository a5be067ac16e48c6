-- join_mesh: count this session, which listens already, among the members of an app until it ends.
-- Locks    member_key, shared; nobody ever takes it otherwise, so this never waits.
-- Returns  the id of the session, by which live_members knows it.
create or replace function mesh.join_mesh(p_app text, p_engine boolean) returns integer language sql as $$
    select pg_backend_pid() where pg_try_advisory_lock_shared(mesh.member_key(p_app, p_engine))
$$;
