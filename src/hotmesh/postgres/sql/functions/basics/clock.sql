-- clock: the one clock that due times, leases and expiries are compared with.
-- A session may freeze it (set hotmesh.now = '2030-01-01T00:00:00Z'); tests move time, nothing else does.
-- Stable, or it could not be an index condition.
create or replace function mesh.clock() returns timestamptz language sql stable as $$
    select coalesce(nullif(current_setting('hotmesh.now', true), '')::timestamptz, statement_timestamp())
$$;
