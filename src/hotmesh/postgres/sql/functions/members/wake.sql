-- wake: send a hint to the processes of an app; one about work also to the worker logins that may take some of it.
-- A worker login is told that there is something, and not of which topic.
create or replace function mesh.wake(p_app text, p_wake text) returns void language plpgsql as $$
begin
    perform mesh.hint(mesh.channel(p_app), p_wake);
    if strpos(p_wake, '"w"') > 0 then
        perform mesh.hint(mesh.worker_channel(c.role_name), '{"w":["*"]}')
           from mesh.worker_credential as c
          where c.app_id = p_app and c.revoked_at is null
            and (p_wake::jsonb -> 'w') ?| (c.topics || '{*}'::text[]);
    end if;
end
$$;
