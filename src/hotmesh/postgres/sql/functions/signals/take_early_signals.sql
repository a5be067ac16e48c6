-- take_early_signals: hand the signals that came before their waiter to the waiters just registered.
-- One for each waiter: the first one under its key whose time is not over.
-- Locks    the caller holds the keys.  Returns how many were handed over.
create or replace function mesh.take_early_signals(p_app text, p_topics text[], p_keys text[]) returns integer
language plpgsql as $$
declare
    v_signal mesh.signal;
    v_count  integer := 0;
begin
    for v_signal in
        with early as materialized (
            select s.place
              from (select k.topic, k.key, count(*) as count
                      from unnest(p_topics, p_keys) as k(topic, key) group by k.topic, k.key) as w
             cross join lateral (
                select s.ctid as place from mesh.signal as s
                 where s.app_id = p_app and s.topic = w.topic and s.key = w.key and s.expires_at > mesh.clock()
                 order by s.ordinal limit w.count
                   for update) as s
        )
        delete from mesh.signal as s using early as w where s.ctid = w.place
        returning s.*
    loop
        if mesh.hand_over_signal(p_app, v_signal.topic, v_signal.key, v_signal.data, v_signal.status, v_signal.code,
                                 extract(epoch from v_signal.expires_at - mesh.clock())::double precision) then
            v_count := v_count + 1;
        end if;
    end loop;
    return v_count;
end
$$;
