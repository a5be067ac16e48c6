-- reserve_work: the part of commit_steps that reserves work which was queued before; called by it, in its transaction.
-- Of the rows that p_what calls 'reserve', those that nobody has, and never had, since the caller knows nothing of what they have
-- gone through: they are p_member's until now + p_lease.
-- Returns  the positions of these, from 0, counted among the rows to reserve; null: there are none.
create or replace function mesh.reserve_work(
    p_member text, p_token bigint, p_lease double precision, p_what text[], p_generation uuid[], p_activity text[],
    p_dimension text[], p_now timestamptz
) returns integer[] language plpgsql as $$
declare
    v_held integer[];
begin
    with wanted as materialized (
        select w.generation, w.activity, w.dimension::integer[] as dimension,
               row_number() over (order by w.ordinal) as position
          from unnest(p_what, p_generation, p_activity, p_dimension) with ordinality
               as w(what, generation, activity, dimension, ordinal)
         where w.what = 'reserve'
    ), free as materialized (
        select s.ctid as place, w.position
          from wanted as w
          join mesh.worker_stream as s on s.generation = any (array[w.generation]) and s.activity_id = w.activity
               and s.dimension = w.dimension
         where s.reserved_by is null and (s.visible_at <= p_now) is true and s.delivery = 0 and s.attempt = 0
           for update of s skip locked
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
