-- worker_answer: for worker logins. Exchange work that this member of this login holds for answers on the engine stream.
-- Which job and activity is answered follows from the stored work, never from what the caller says.
-- Locks    as worker_take if a lease is over.
-- Writes   mesh.worker_pending for answers that are pending: this login may add the ones that follow.
-- Returns  for each element whether it was still held; the others' answers do not count.
create or replace function mesh.worker_answer(
    p_member text, p_generation uuid[], p_activity text[], p_dimension text[], p_status text[], p_code integer[],
    p_data text[]
) returns boolean[] language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login  constant mesh.worker_credential := mesh.worker_login();
    v_holder constant text := mesh.worker_holder(v_login, p_member);
    v_count  constant integer := mesh.worker_check_batch(p_generation, p_activity, p_dimension);
    v_data   text[] := '{}';
begin
    if cardinality(p_status) is distinct from v_count or cardinality(p_code) is distinct from v_count
       or cardinality(p_data) is distinct from v_count then
        raise exception 'one status, code and payload for each answer' using errcode = '22023';
    end if;
    if v_count = 0 then
        return '{}';
    end if;
    for v_at in 1 .. v_count loop
        v_data := v_data || mesh.worker_check_payload(p_data[v_at], p_status[v_at], p_code[v_at], v_login.max_payload);
    end loop;
    perform mesh.worker_check_encoded(
                v_login.app_id, s.job_id, s.generation, s.activity_id, s.dimension, w.data)
       from unnest(p_generation, p_activity, p_dimension, v_data) as w(generation, activity, dimension, data)
       join mesh.worker_stream as s on s.generation = any (array[w.generation]) and s.activity_id = w.activity
            and s.dimension = w.dimension::integer[]
      where s.reserved_by = v_holder;
    perform mesh.worker_retake(v_login, v_holder, p_generation, p_activity, p_dimension);
    if 'pending' = any (p_status) then
        insert into mesh.worker_pending (
            app_id, role_name, topic, job_id, generation, activity_id, dimension, created_at)
        select v_login.app_id, v_login.role_name, s.topic, s.job_id, s.generation, s.activity_id, s.dimension, mesh.clock()
          from unnest(p_generation, p_activity, p_dimension, p_status) as w(generation, activity, dimension, status)
          join mesh.worker_stream as s on s.generation = any (array[w.generation]) and s.activity_id = w.activity
               and s.dimension = w.dimension::integer[]
         where w.status = 'pending' and s.reserved_by = v_holder
         order by s.generation, s.activity_id, s.dimension
           for update of s
        on conflict on constraint worker_pending_pk do nothing;
    end if;
    return mesh.answer_work(
        v_login.app_id, v_holder, p_generation, p_activity, p_dimension, p_status, p_code, v_data, '{"e":1}');
end
$$;
