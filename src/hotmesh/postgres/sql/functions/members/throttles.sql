-- throttles: the rates that are stored for an app.
create or replace function mesh.throttles(p_app text) returns table (scope text, topic text, rate integer)
language sql stable as $$
    select t.scope, t.topic, t.rate from mesh.throttle as t where t.app_id = p_app
$$;
