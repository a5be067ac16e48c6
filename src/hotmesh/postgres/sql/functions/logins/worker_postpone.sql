-- worker_postpone: for worker logins. Give work back that this member of this login holds.
-- It is visible again after the delay. p_retry true: it has failed, and p_error says of what. False: it has not been tried to the end; unlike elsewhere it
-- counts as delivered, or a login could take and return it for ever.
-- But work that it leaves alone for a second (longer is the same), since it cannot read it, does not: others may. That goes on for
-- longest_delay.
-- Work that has failed most_attempts times is given up, and so is what nobody could read for so long.
-- Locks    as worker_take if a lease is over.
-- Returns  how many were still held.
create or replace function mesh.worker_postpone(
    p_member text, p_generation uuid[], p_activity text[], p_dimension text[], p_delay double precision[],
    p_retry boolean[], p_error text[] default null
) returns integer language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login  constant mesh.worker_credential := mesh.worker_login();
    v_holder constant text := mesh.worker_holder(v_login, p_member);
    v_count  constant integer := mesh.worker_check_batch(p_generation, p_activity, p_dimension);
    v_row    record;
    v_held   integer := 0;
    v_topics text[] := '{}';
begin
    if cardinality(p_delay) is distinct from v_count or cardinality(p_retry) is distinct from v_count
       or array_position(p_retry, null) is not null then
        raise exception 'one delay and one mark of failure for each piece of work' using errcode = '22023';
    end if;
    if cardinality(p_error) <> v_count or exists (select from unnest(p_error) as e where octet_length(e) > 20000) then
        raise exception 'one error of at most 20000 bytes for each piece of work' using errcode = '22023';
    end if;
    if (0 <= all (p_delay) and v_login.longest_delay >= all (p_delay)) is not true then
        raise exception 'a delay of this login has 0 to % seconds', v_login.longest_delay using errcode = '22023';
    end if;
    perform mesh.worker_retake(v_login, v_holder, p_generation, p_activity, p_dimension);
    for v_row in
        update mesh.worker_stream as s
           set visible_at = mesh.clock() + case when w.retry then w.delay else least(w.delay, 1) end * interval '1 second',
               attempt = s.attempt + w.retry::integer,
               last_error = case when w.retry then w.error else s.last_error end,
               delivery = case when w.retry then 0 when w.delay >= 1 then greatest(s.delivery - 1, 0) else s.delivery end,
               beside = case when s.beside = false then true else s.beside end
          from unnest(p_generation, p_activity, p_dimension, p_delay, p_retry, p_error)
               as w(generation, activity, dimension, delay, retry, error)
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
           and s.reserved_by = v_holder and s.reserved_at is not null
        returning s as work, w.retry, w.delay
    loop
        v_held := v_held + 1;
        if (v_row.work).attempt >= v_login.most_attempts then
            perform mesh.give_up_work(
                v_row.work, format('failed %s times, as often as its workers may', (v_row.work).attempt));
        elsif not v_row.retry and v_row.delay >= 1
              and (v_row.work).created_at < mesh.clock() - v_login.longest_delay * interval '1 second' then
            perform mesh.give_up_work(
                v_row.work, format('workers of %s have put it off unread for too long', (v_row.work).topic));
        elsif v_row.delay = 0 then
            v_topics := v_topics || (v_row.work).topic;
        end if;
    end loop;
    update mesh.worker_stream as s
       set reserved_by = null, reserved_at = null
      from unnest(p_generation, p_activity, p_dimension) as w(generation, activity, dimension)
     where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
       and s.reserved_by = v_holder and s.reserved_at is not null;
    if cardinality(v_topics) > 0 then
        perform mesh.wake(v_login.app_id, json_build_object('w', v_topics)::text);
    end if;
    return v_held;
end
$$;
