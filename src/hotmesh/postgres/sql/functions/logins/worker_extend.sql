-- worker_extend: for worker logins. Prolong reservations of this member of this login, to now + p_lease, and never past
-- longest_hold from the moment they were made. What has lapsed and nobody else has taken is taken back, within most_held.
-- Locks    as worker_take if anything has lapsed.
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
    perform mesh.worker_retake(v_login, v_holder, p_generation, p_activity, p_dimension);
    with mine as materialized (
        select s.generation, s.activity_id, s.dimension, s.visible_at <= v_now as lapsed,
               row_number() over (partition by s.visible_at <= v_now order by w.ordinal) as position
          from (select distinct on (u.generation, u.activity, u.dimension::integer[]) u.*
                  from unnest(p_generation, p_activity, p_dimension) with ordinality
                       as u(generation, activity, dimension, ordinal)
                 order by u.generation, u.activity, u.dimension::integer[], u.ordinal) as w
          join mesh.worker_stream as s on s.generation = any (array[w.generation]) and s.activity_id = w.activity
               and s.dimension = w.dimension::integer[]
         where s.reserved_by = v_holder and s.reserved_at + v_login.longest_hold * interval '1 second' > v_now
    ), within as materialized (
        -- Not counted where nothing has lapsed.
        select m.* from mine as m
         where not m.lapsed
            or m.position <= (select mesh.worker_left(v_login, v_now) where exists (select from mine as n where n.lapsed))
    ), held as (
        update mesh.worker_stream as s
           set visible_at = least(v_now + p_lease * interval '1 second',
                                  s.reserved_at + v_login.longest_hold * interval '1 second')
          from within as w
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity_id and s.dimension = w.dimension
           and s.reserved_by = v_holder and (s.visible_at <= v_now) = w.lapsed
        returning s.generation, s.activity_id, s.dimension
    )
    select array_agg(h.generation is not null order by w.ordinal) into v_held
      from unnest(p_generation, p_activity, p_dimension) with ordinality as w(generation, activity, dimension, ordinal)
      left join held as h on h.generation = w.generation and h.activity_id = w.activity
           and h.dimension = w.dimension::integer[];
    return coalesce(v_held, '{}');
end
$$;
