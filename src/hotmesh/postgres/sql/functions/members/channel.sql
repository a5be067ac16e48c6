-- channel: the name of an app's NOTIFY channel. It follows from the secret of the namespace, because whoever knows the name
-- may listen, and results of jobs are sent there.
create or replace function mesh.channel(p_app text) returns text language sql stable as $$
    select 'hotmesh:' || left(encode(sha256(convert_to(s.value || ':app:' || p_app, 'UTF8')), 'hex'), 48)
      from mesh.secret as s
$$;
