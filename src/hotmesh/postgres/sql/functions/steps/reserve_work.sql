-- reserve_work: the part of commit_steps that reserves work which was queued before; called by it, in its transaction.
-- p_rows: as k_rows. Of these, those that nobody has, and never had, since the caller knows nothing of what they have gone
-- through: they are p_member's until now + p_lease.
-- Returns  the positions of these, from 0; null: there are none.
create or replace function mesh.reserve_work(
    p_member text, p_token bigint, p_lease double precision, p_rows jsonb, p_now timestamptz
) returns integer[] language plpgsql as $$
declare
    v_held integer[];
begin
    with wanted as materialized (
        select (k.r ->> 1)::uuid as generation, k.r ->> 2 as activity, (k.r ->> 3)::integer[] as dimension,
               k.ordinal as position
          from jsonb_array_elements(p_rows) with ordinality as k(r, ordinal)
    ), free as materialized (
        select f.place, w.position
          from wanted as w
         cross join lateral (
            select s.ctid as place from mesh.worker_stream as s
             where s.generation = w.generation and s.activity_id = w.activity and s.dimension = w.dimension
               and s.reserved_by is null and (s.visible_at <= p_now) is true and s.delivery = 0 and s.attempt = 0
               and s.cancelled is not true
               for update skip locked) as f
    ), reserved as (
        update mesh.worker_stream as s
           set reserved_by = p_member, reservation = p_token,
               visible_at = p_now + p_lease * interval '1 second',
               delivery = s.delivery + 1
          from free as f
         where s.ctid = f.place
        returning f.position
    )
    select array_agg(r.position - 1) into v_held from reserved as r;
    return v_held;
end
$$;
