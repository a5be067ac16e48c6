-- settle_escalation: resolve or cancel a work item, and wake who waits for it, in one transaction.
-- p_status: resolved | cancelled. p_payload: for the row, as it is stored; p_data: for who waits, who is told of a cancel by the code 499.
-- Locks    the signal key, then the wait, then the row: as a step that ends the wait.
-- Returns  outcome: ok | not-found | already-resolved | already-cancelled | already-expired; entry: the row, as it is now.
create or replace function mesh.settle_escalation(
    p_app text, p_id uuid, p_status text, p_payload jsonb, p_data json, p_keep double precision,
    p_wake text, out outcome text, out entry text
) language plpgsql set enable_seqscan = off as $$
declare
    v_row  mesh.escalation;
    v_now  constant timestamptz := mesh.clock();
    v_word constant text := case p_status when 'resolved' then 'success' else 'error' end;
    v_code constant integer := case p_status when 'resolved' then 200 else 499 end;
begin
    select * into v_row from mesh.escalation as e where e.app_id = p_app and e.id = p_id;
    if v_row.id is null then
        outcome := 'not-found';
        return;
    end if;
    if v_row.signal_key is not null then
        perform mesh.lock_signal_keys(p_app, array[v_row.topic], array[v_row.signal_key]);
        perform from mesh.wait as w
          where w.app_id = p_app and w.topic = v_row.topic and w.key = v_row.signal_key
          order by w.created_at, w.generation limit 1 for update;
    end if;
    update mesh.escalation as e
       set status = p_status, updated_at = v_now, resolved_at = case when p_status = 'resolved' then v_now end,
           resolver_payload = case when p_status = 'resolved' then p_payload end
     where e.id = p_id and e.status = 'pending'
    returning * into v_row;
    if not found then
        select * into v_row from mesh.escalation as e where e.id = p_id;
        outcome := coalesce('already-' || v_row.status, 'not-found');
    else
        outcome := 'ok';
        if v_row.signal_key is not null then
            if mesh.hand_over_signal(p_app, v_row.topic, v_row.signal_key, p_data, v_word, v_code, p_keep) then
                perform mesh.wake(p_app, p_wake);
            end if;
        end if;
    end if;
    entry := to_jsonb(v_row)::text;
end
$$;
