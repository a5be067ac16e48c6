-- escalation_id: the work item of a wait; it follows from the activity instance, so that the wait finds it again.
create or replace function mesh.escalation_id(p_generation uuid, p_activity text, p_dimension text) returns uuid
language sql immutable as $$
    select md5(p_generation::text || '/' || p_activity || '/' || p_dimension)::uuid
$$;
