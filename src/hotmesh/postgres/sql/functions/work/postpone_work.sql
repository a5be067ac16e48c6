-- postpone_work: give reserved work back, visible again after a delay; p_retry counts it as a failed attempt, of which
-- p_error is kept until the next one; p_details: what heartbeats have said, or null. What has been asked to end is not put off.
-- Used for retries with backoff, and (delay 0, no retry) for work that a stopping process has not started.
-- Returns  how many were still held.
create or replace function mesh.postpone_work(
    p_app text, p_member text, p_generation uuid[], p_activity text[], p_dimension text[], p_delay double precision[],
    p_retry boolean[], p_error text[], p_wake text, p_details text[] default null
) returns integer language plpgsql as $$
declare
    v_count integer;
begin
    with postponed as (
        update mesh.worker_stream as s
           set reserved_by = null, handed_over = null,
               visible_at = mesh.clock() + case when s.cancelled then 0 else w.delay end * interval '1 second'
                                         + case when s.paused then interval '1000 years' else interval '0 seconds' end,
               heartbeat = coalesce(w.details::json, s.heartbeat),
               attempt = s.attempt + w.retry::integer,
               last_error = case when w.retry then w.error else s.last_error end,
               delivery = case when w.retry then 0 else greatest(s.delivery - 1, 0) end,
               -- Whoever ran it alone has not died of it.
               beside = case when s.beside = false then true else s.beside end
          from unnest(p_generation, p_activity, p_dimension, p_delay, p_retry, p_error, p_details)
               as w(generation, activity, dimension, delay, retry, error, details)
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension::integer[]
           and s.reserved_by = p_member
        returning 1
    )
    select count(*) into v_count from postponed;
    if p_wake is not null then
        perform mesh.wake(p_app, p_wake);
    end if;
    return v_count;
end
$$;
