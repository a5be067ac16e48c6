-- worker_throttles: for worker logins. The rates of workers that concern topics of this login, as throttles returns them.
create or replace function mesh.worker_throttles()
returns table (scope text, topic text, rate integer) language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login constant mesh.worker_credential := mesh.worker_login();
begin
    return query
    select t.scope, t.topic, t.rate from mesh.throttle as t
     where t.app_id = v_login.app_id and t.scope = 'workers' and (t.topic = '' or t.topic = any (v_login.topics));
end
$$;
