-- worker_prefix: how everything begins that is held under a worker login. Of one login only, whatever its name is: the first / ends it,
-- and none is before.
create or replace function mesh.worker_prefix(p_role text) returns text language sql immutable as $$
    select replace(replace(p_role, '%', '%25'), '/', '%2F') || '/'
$$;
