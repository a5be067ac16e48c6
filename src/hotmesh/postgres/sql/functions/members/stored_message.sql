-- stored_message: a message between members that was too large for a notification, or null if its time is over.
create or replace function mesh.stored_message(p_app text, p_id bigint) returns text language sql stable as $$
    select q.message from mesh.quorum_message as q where q.app_id = p_app and q.id = p_id
$$;
