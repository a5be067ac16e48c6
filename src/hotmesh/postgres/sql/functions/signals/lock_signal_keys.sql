-- lock_signal_keys: make waiters and signals under the same keys take turns until the transaction ends.
-- Locks    one row of signal_lock per key, in the order of their numbers, so that no two batches can deadlock. Not advisory
--          locks: any login may take those, and hold them for ever.
-- Raises   25001 unless the transaction is read committed: another one would not see who was first, and so lose the signal.
create or replace function mesh.lock_signal_keys(p_app text, p_topics text[], p_keys text[]) returns void
language plpgsql set enable_seqscan = off as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'signals need a transaction that is read committed, not %', current_setting('transaction_isolation')
            using errcode = '25001';
    end if;
    perform from mesh.signal_lock as s
      where s.number = any (array(
             select distinct (hashtextextended(p_app || chr(31) || k.topic || chr(31) || k.key, 7301) & 16383)::integer
               from unnest(p_topics, p_keys) as k(topic, key)))
      order by s.number
        for update;
end
$$;
