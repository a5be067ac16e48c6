-- lock_signal_keys: make waiters and signals under the same keys take turns until the transaction ends.
-- Locks    one advisory lock per key, in the order of their numbers, so that no two batches can deadlock.
create or replace function mesh.lock_signal_keys(p_app text, p_topics text[], p_keys text[]) returns void
language plpgsql as $$
declare
    v_lock bigint;
begin
    for v_lock in
        select distinct hashtextextended(p_app || chr(31) || k.topic || chr(31) || k.key, 7301)
          from unnest(p_topics, p_keys) as k(topic, key)
         order by 1
    loop
        perform pg_advisory_xact_lock(v_lock);
    end loop;
end
$$;
