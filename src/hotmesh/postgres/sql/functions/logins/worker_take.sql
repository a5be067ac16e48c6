-- worker_take: a worker login is about to lock work that others could take. The procedures that do so begin with it; one transaction of
-- a login is at it at a time.
--
-- Until its transaction ends, nobody else gets that work; and of one that is rolled back nothing is left, so that a login could keep work from
-- everybody by rolling back again and again. So what it does is marked where a rollback does not reach, in a sequence: when it
-- began, and its debt, both in milliseconds. The same value stands in a row. If they differ, the last transaction was rolled back,
-- and has held what it took for no longer than since it began, nor for longer than engines let a transaction be open. That is
-- added to the debt, which falls by a fifth of the time that passes. Above 20 seconds, the login gets nothing.
-- So a login can keep work from others for half a minute, and then for a sixth of the time.
-- Locks    the row of the login in worker_mark, until the transaction ends.
-- Writes   that row, and the sequence worker_mark_<id>.
-- Returns  whether it may.
create or replace function mesh.worker_take(p_login mesh.worker_credential) returns boolean language plpgsql as $$
declare
    v_sequence constant regclass := to_regclass(format('%I.worker_mark_%s', mesh.namespace(), p_login.id));
    v_row      mesh.worker_mark;
    v_mark     bigint;
    v_began    bigint;
    v_debt     bigint;
    v_now      bigint;
begin
    select * into v_row from mesh.worker_mark as m where m.credential_id = p_login.id for no key update;
    if not found or v_sequence is null then
        raise exception 'the login % was made by another release of hotmesh: provision it again', p_login.role_name
            using errcode = '55000';
    end if;
    if v_row.taken_by = pg_current_xact_id() then
        return true;  -- marked already, and not rolled back to a savepoint since
    end if;
    v_now := (extract(epoch from clock_timestamp()) * 1000)::bigint;
    v_mark := coalesce(pg_sequence_last_value(v_sequence), 0);
    v_began := v_mark >> 18;
    v_debt := greatest(0, (v_mark & 262143) - greatest(0, v_now - v_began) / 5);
    if v_mark <> v_row.mark then
        v_debt := v_debt + least(7000, greatest(0, v_now - v_began));
    end if;
    if v_debt > 20000 then
        raise warning 'transactions of % that took work were rolled back too often: it gets none for a while',
            p_login.role_name;
        return false;
    end if;
    -- Never the same mark again, or the one before would count for this one.
    v_began := greatest(v_began + 1, (extract(epoch from transaction_timestamp()) * 1000)::bigint);
    v_mark := setval(v_sequence, (v_began << 18) | v_debt);
    update mesh.worker_mark as m set mark = v_mark, taken_by = pg_current_xact_id() where m.credential_id = p_login.id;
    return true;
end
$$;
