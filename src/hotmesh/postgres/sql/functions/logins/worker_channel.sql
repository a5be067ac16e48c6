-- worker_channel: the name of the NOTIFY channel of a worker login. Hints are sent there, and nothing else.
create or replace function mesh.worker_channel(p_role text) returns text language sql stable as $$
    select 'hotmesh:' || left(encode(sha256(convert_to(s.value || ':role:' || p_role, 'UTF8')), 'hex'), 48)
      from mesh.secret as s
$$;
