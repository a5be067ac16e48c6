-- hand_over_activity: an activity that p_member runs is ended from elsewhere, by its token (answer_activity): nobody holds its row from here on.
-- p_seconds, p_limit: when the attempt is over, and by which limit; null: never. Whoever takes the row then ends the attempt by that limit.
-- p_details: what heartbeats have said, or null.
-- Returns  whether it was still held.
create or replace function mesh.hand_over_activity(
    p_member text, p_generation uuid, p_activity text, p_dimension text, p_seconds double precision, p_limit text, p_details text
) returns boolean language plpgsql as $$
begin
    update mesh.worker_stream as s
       set reserved_by = '(token)', reservation = null, reply_channel = null, handed_over = coalesce(p_limit, ''),
           visible_at = mesh.clock() + coalesce(p_seconds * interval '1 second', interval '1000 years'),
           heartbeat = coalesce(p_details::json, s.heartbeat)
     where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension::integer[]
       and s.reserved_by = p_member;
    return found;
end
$$;
