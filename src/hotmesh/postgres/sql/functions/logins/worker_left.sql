-- worker_left: how much more a worker login may hold at this moment. The caller has taken its turn (worker_take), so that it stays true.
create or replace function mesh.worker_left(p_login mesh.worker_credential, p_now timestamptz) returns bigint
language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    v_prefix constant text := mesh.worker_prefix(p_login.role_name);
begin
    return greatest(0, p_login.most_held - (
        select count(*) from mesh.worker_stream as w
         where w.reserved_at is not null and w.visible_at > p_now
           and w.reserved_by collate "C" >= v_prefix and w.reserved_by collate "C" < rtrim(v_prefix, '/') || '0'));
end
$$;
