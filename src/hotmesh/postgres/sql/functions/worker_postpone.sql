-- worker_postpone: for worker logins. Give work back that this member of this login holds.
-- p_retry true: it has failed, and is visible again after the delay. False: it has not been tried to the end, and is visible
-- at once; unlike elsewhere it counts as delivered, or a login could hold and return it for ever.
-- Work that has failed most_attempts times is given up.
-- Returns  how many were still held.
create or replace function mesh.worker_postpone(
    p_member text, p_generation uuid[], p_activity text[], p_dimension text[], p_delay double precision[],
    p_retry boolean[]
) returns integer language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login  constant mesh.worker_credential := mesh.worker_login();
    v_holder constant text := mesh.worker_holder(v_login, p_member);
    v_count  constant integer := mesh.worker_check_batch(p_generation, p_activity, p_dimension);
    v_work   mesh.worker_stream;
    v_held   integer := 0;
    v_topics text[] := '{}';
begin
    if cardinality(p_delay) is distinct from v_count or cardinality(p_retry) is distinct from v_count
       or array_position(p_retry, null) is not null then
        raise exception 'one delay and one mark of failure for each piece of work' using errcode = '22023';
    end if;
    if (0 <= all (p_delay) and v_login.longest_delay >= all (p_delay)) is not true then
        raise exception 'a delay of this login has 0 to % seconds', v_login.longest_delay using errcode = '22023';
    end if;
    for v_work in
        update mesh.worker_stream as s
           set visible_at = mesh.clock() + case when w.retry then w.delay else 0 end * interval '1 second',
               attempt = s.attempt + w.retry::integer,
               delivery = case when w.retry then 0 else s.delivery end
          from unnest(p_generation, p_activity, p_dimension, p_delay, p_retry)
               as w(generation, activity, dimension, delay, retry)
         where s.generation = w.generation and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
           and s.reserved_by = v_holder and s.reserved_at is not null
        returning s.*
    loop
        v_held := v_held + 1;
        if v_work.attempt >= v_login.most_attempts then
            perform mesh.give_up_work(v_work, format('failed %s times, as often as its workers may', v_work.attempt));
        else
            v_topics := v_topics || v_work.topic;
        end if;
    end loop;
    update mesh.worker_stream as s
       set reserved_by = null, reserved_at = null
      from unnest(p_generation, p_activity, p_dimension) as w(generation, activity, dimension)
     where s.generation = w.generation and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
       and s.reserved_by = v_holder and s.reserved_at is not null;
    if cardinality(v_topics) > 0 and not true = all (p_retry) then
        perform mesh.wake(v_login.app_id, json_build_object('w', v_topics)::text);
    end if;
    return v_held;
end
$$;
