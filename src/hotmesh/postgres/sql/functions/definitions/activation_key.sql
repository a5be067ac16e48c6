-- activation_key: the key of the advisory lock under which versions of an app are activated, one at a time.
create or replace function mesh.activation_key(p_app text) returns bigint language sql stable as $$
    select hashtextextended(mesh.channel(p_app) || '/activation', 0)
$$;
