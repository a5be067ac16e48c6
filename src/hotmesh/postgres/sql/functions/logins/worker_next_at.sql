-- worker_next_at: for worker logins. Seconds until the next work of these topics becomes visible, or null if there is none.
-- p_names, p_others, p_since, p_within: as in next_work_at.
create or replace function mesh.worker_next_at(
    p_topics text[], p_names text[], p_others text[], p_since timestamptz[] default null,
    p_within double precision default null
) returns double precision language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login constant mesh.worker_credential := mesh.worker_login();
begin
    perform mesh.worker_check_topics(v_login, p_topics);
    if cardinality(p_names) is distinct from cardinality(p_topics) or array_ndims(p_names) > 1
       or cardinality(p_others) is distinct from cardinality(p_topics) or array_ndims(p_others) > 1
       or cardinality(p_since) <> cardinality(p_topics) or array_ndims(p_since) > 1 then
        raise exception 'one name, list of other names, and moment for each topic' using errcode = '22023';
    end if;
    return mesh.next_work_at(v_login.app_id, p_topics, p_names, p_others, p_since, p_within);
end
$$;
