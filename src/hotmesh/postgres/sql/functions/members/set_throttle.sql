-- set_throttle: store the rate of engines, of workers or of both, and tell the members of the app.
-- A rate of all workers replaces those of single topics. Locks the rows of the scope, in key order.
create or replace function mesh.set_throttle(
    p_app text, p_scopes text[], p_topic text, p_rate integer, p_message text
) returns void language plpgsql as $$
begin
    -- One at a time, so that the rates and the order of the messages about them agree.
    perform pg_advisory_xact_lock(hashtextextended(mesh.channel(p_app) || '/throttle', 0));
    if p_topic is null then
        delete from mesh.throttle as t where t.app_id = p_app and t.scope = any (p_scopes);
    end if;
    insert into mesh.throttle (app_id, scope, topic, rate, set_at)
    select p_app, s.scope, coalesce(p_topic, ''), p_rate, mesh.clock()
      from unnest(p_scopes) as s(scope)
     where p_rate <> 0 or p_topic is not null
     order by s.scope
    on conflict on constraint throttle_pk do update set rate = excluded.rate, set_at = excluded.set_at;
    -- A queue that was full stays so until somebody asks how full it is.
    perform pg_notification_queue_usage();
    perform pg_notify(mesh.channel(p_app), p_message);
    perform pg_notify(mesh.worker_channel(c.role_name), '{"t":1}')
       from mesh.worker_credential as c where c.app_id = p_app and c.revoked_at is null;
end
$$;
