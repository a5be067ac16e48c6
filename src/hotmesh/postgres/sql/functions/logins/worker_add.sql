-- worker_add: for worker logins. Add a further answer to an activity that this login, by whichever of its members, has answered
-- with "pending". Each p_guid counts once.
-- Which job and activity is answered follows from what was kept of that answer (worker_pending).
-- Locks    that row; then as put_message.
-- Returns  sent | duplicate (the guid has been used)
--          held     a member of this login holds the work and has not answered yet: ask again when it has
--          closed   everything else: not pending, no such job, ended, another login's. Nothing is written.
-- Raises   as worker_answer; 54000 once there are most_attempts answers.
create or replace function mesh.worker_add(
    p_job_id text, p_generation uuid, p_activity text, p_dimension text, p_guid text, p_status text, p_code integer,
    p_data text
) returns text language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login   constant mesh.worker_credential := mesh.worker_login();
    v_data    constant text := mesh.worker_check_payload(p_data, p_status, p_code, v_login.max_payload);
    v_pending mesh.worker_pending;
    v_outcome text;
begin
    if (length(p_guid) between 1 and 512) is not true then
        raise exception 'the guid of an answer has 1 to 512 characters' using errcode = '22023';
    end if;
    select * into v_pending from mesh.worker_pending as p
     where p.generation = p_generation and p.activity_id = p_activity and p.dimension = p_dimension::integer[]
       and p.job_id = p_job_id and p.role_name = v_login.role_name and p.app_id = v_login.app_id
       and p.topic = any (v_login.topics)
       for update;
    if not found then
        perform from mesh.worker_stream as s
          where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[]
            and s.job_id = p_job_id and s.reserved_at is not null and s.visible_at > mesh.clock()
            and starts_with(s.reserved_by, mesh.worker_prefix(v_login.role_name));
        return case when found then 'held' else 'closed' end;
    end if;
    if v_pending.final_guid is not null then
        return case when v_pending.final_guid = p_guid then 'duplicate' else 'closed' end;
    end if;
    if v_pending.added >= v_login.most_attempts then
        raise exception 'an activity takes at most % further answers of this login', v_login.most_attempts
            using errcode = '54000';
    end if;
    perform mesh.worker_check_encoded(
        v_login.app_id, v_pending.job_id, v_pending.generation, v_pending.activity_id, v_pending.dimension, v_data);
    v_outcome := (mesh.put_message(
        v_login.app_id, v_pending.job_id, v_pending.generation, 'later:' || p_guid, 'added', v_pending.activity_id,
        v_pending.dimension, p_status, p_code, v_data::json, 0)).outcome;
    if v_outcome = 'missing' then
        return 'closed';
    end if;
    if v_outcome = 'sent' then
        perform mesh.wake(v_login.app_id, '{"e":1}');
        update mesh.worker_pending as p
           set added = p.added + 1, final_guid = case when p_status <> 'pending' then p_guid end
         where p.generation = v_pending.generation and p.activity_id = v_pending.activity_id
           and p.dimension = v_pending.dimension;
    end if;
    return v_outcome;
end
$$;
