-- beat_activity: a heartbeat of an attempt that was handed over, by its token. p_every: its heartbeat_timeout in seconds, p_until: when the attempt
-- is over; null: neither. p_details: what it says, or null.
-- Returns  whether it is still wanted; false: it was asked to end. Null: the attempt is not there any more.
create or replace function mesh.beat_activity(
    p_generation uuid, p_activity text, p_dimension text, p_attempt integer, p_every double precision,
    p_until timestamptz, p_details text
) returns boolean language plpgsql as $$
declare
    v_cancelled boolean;
begin
    update mesh.worker_stream as s
       set heartbeat = coalesce(p_details::json, s.heartbeat),
           visible_at = case when s.handed_over is null or p_every is null then s.visible_at
                             else least(mesh.clock() + p_every * interval '1 second', p_until) end,
           handed_over = case when s.handed_over is null or p_every is null then s.handed_over
                              when p_until <= mesh.clock() + p_every * interval '1 second' then 'start_to_close'
                              else 'heartbeat' end
     where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[]
       and s.attempt = p_attempt and (s.handed_over is null or s.reserved_by = '(token)')
    returning coalesce(s.cancelled, false) into v_cancelled;
    return not v_cancelled;
end
$$;
