-- worker_extend: for worker logins. Prolong reservations of this member of this login, to now + p_lease, and never past
-- longest_hold from the moment they were made.
-- Returns  for each element whether it is still held.
create or replace function mesh.worker_extend(
    p_member text, p_generation uuid[], p_activity text[], p_dimension text[], p_lease double precision
) returns boolean[] language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_login  constant mesh.worker_credential := mesh.worker_login();
    v_holder constant text := mesh.worker_holder(v_login, p_member);
    v_now    constant timestamptz := mesh.clock();
    v_held   boolean[];
begin
    perform mesh.worker_check_batch(p_generation, p_activity, p_dimension);
    if (p_lease between 1 and v_login.longest_lease) is not true then
        raise exception 'a lease of this login has 1 to % seconds', v_login.longest_lease using errcode = '22023';
    end if;
    with held as (
        update mesh.worker_stream as s
           set visible_at = least(v_now + p_lease * interval '1 second',
                                  s.reserved_at + v_login.longest_hold * interval '1 second')
          from unnest(p_generation, p_activity, p_dimension) as w(generation, activity, dimension)
         where s.generation = w.generation and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
           and s.reserved_by = v_holder and s.reserved_at + v_login.longest_hold * interval '1 second' > v_now
        returning s.generation, s.activity_id, s.dimension
    )
    select array_agg(h.generation is not null order by w.ordinal) into v_held
      from unnest(p_generation, p_activity, p_dimension) with ordinality as w(generation, activity, dimension, ordinal)
      left join held as h on h.generation = w.generation and h.activity_id = w.activity
           and h.dimension = w.dimension::integer[];
    return coalesce(v_held, '{}');
end
$$;
