-- worker_hello: for worker logins. What this login may do, and the channel on which it is told that there is work.
create or replace function mesh.worker_hello()
returns table (
    app_id text, topics text[], channel text, most_held integer, longest_lease double precision,
    longest_hold double precision, longest_delay double precision, max_payload integer,
    most_deliveries integer
) language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login constant mesh.worker_credential := mesh.worker_login();
begin
    return query select v_login.app_id, v_login.topics, mesh.worker_channel(v_login.role_name), v_login.most_held,
                        v_login.longest_lease, v_login.longest_hold, v_login.longest_delay, v_login.max_payload,
                        v_login.most_deliveries;
end
$$;
