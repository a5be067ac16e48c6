-- worker_claim: for worker logins. Reserve visible work of topics of this login, at most p_limits of each, in the order of claim_work.
-- p_names, p_others, p_last, p_since: as in claim_work; with neither name, work of any workflow name.
-- Locks    as worker_take, so that the bound on what a login holds is kept; then the rows, skipping what others claim.
-- Writes   reserved_by = login/member, reservation, reserved_at, visible_at = now + p_lease, delivery + 1, beside. Work that was delivered more
--          often than most_deliveries, and never answered, is given up; if it ran beside other work all that time, after twice as many.
-- Returns  the reserved rows; less than asked for, once the login holds most_held; none while worker_take refuses.
create or replace function mesh.worker_claim(
    p_member text, p_topics text[], p_names text[], p_others text[], p_limits integer[], p_lease double precision,
    p_reservation bigint default null, p_last integer default null, p_since timestamptz[] default null
) returns setof mesh.worker_stream language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_login  constant mesh.worker_credential := mesh.worker_login();
    v_holder constant text := mesh.worker_holder(v_login, p_member);
    v_now    constant timestamptz := mesh.clock();
    v_left   integer;
    v_work   mesh.worker_stream;
begin
    perform set_config('synchronous_commit', 'off', true);  -- as in claim_work
    perform mesh.worker_check_topics(v_login, p_topics);
    if cardinality(p_limits) is distinct from cardinality(p_topics) or array_ndims(p_limits) > 1
       or cardinality(p_names) is distinct from cardinality(p_topics) or array_ndims(p_names) > 1
       or cardinality(p_others) is distinct from cardinality(p_topics) or array_ndims(p_others) > 1
       or cardinality(p_since) <> cardinality(p_topics) or array_ndims(p_since) > 1 then
        raise exception 'one name, list of other names, limit, and moment for each topic' using errcode = '22023';
    end if;
    if (p_lease between 1 and v_login.longest_lease) is not true then
        raise exception 'a lease of this login has 1 to % seconds', v_login.longest_lease using errcode = '22023';
    end if;
    for v_at in 1 .. coalesce(cardinality(p_topics), 0) loop
        perform p_others[v_at]::text[];  -- what cannot be read is no reason to roll back later
    end loop;
    if not mesh.worker_take(v_login) then
        return;
    end if;
    v_left := mesh.worker_left(v_login, v_now);
    for v_at in 1 .. coalesce(cardinality(p_topics), 0) loop
        exit when v_left <= 0;
        for v_work in
            with lapsed as materialized (
                select w.ctid as place
                  from mesh.worker_stream as w
                 where coalesce(w.reserved_by, '') <> '' and w.app_id = v_login.app_id and w.topic = p_topics[v_at]
                   and w.visible_at <= v_now and w.visible_at >= coalesce(p_since[v_at], '-infinity')
                   and (p_names[v_at] is null or w.workflow_name = p_names[v_at])
                   and (p_names[v_at] is not null or w.workflow_name <> all (p_others[v_at]::text[]))
                 order by w.visible_at
                 limit least(greatest(p_limits[v_at], 0), v_left, 1000)
                   for update skip locked
            ), by_name as materialized (
                select w.ctid as place
                  from mesh.worker_stream as w
                 where p_names[v_at] is not null and length(coalesce(w.reserved_by, '')) = 0 and w.app_id = v_login.app_id and w.topic = p_topics[v_at]
                   and w.visible_at <= v_now and w.visible_at >= coalesce(p_since[v_at], '-infinity')
                   and w.workflow_name = p_names[v_at]
                 order by w.visible_at
                 limit least(greatest(p_limits[v_at], 0), v_left, 1000) - (select count(*) from lapsed)
                   for update skip locked
            ), by_topic as materialized (
                select w.ctid as place
                  from mesh.worker_stream as w
                 where p_names[v_at] is null and coalesce(w.reserved_by, '') = '' and w.app_id = v_login.app_id and w.topic = p_topics[v_at]
                   and w.visible_at <= v_now and w.visible_at >= coalesce(p_since[v_at], '-infinity')
                   and w.workflow_name <> all (p_others[v_at]::text[])
                 order by w.visible_at
                 limit least(greatest(p_limits[v_at], 0), v_left, 1000) - (select count(*) from lapsed)
                   for update skip locked
            )
            update mesh.worker_stream as w
               set reserved_by = v_holder, reservation = p_reservation, reserved_at = v_now,
                   visible_at = v_now + least(p_lease, v_login.longest_hold) * interval '1 second',
                   delivery = w.delivery + 1,
                   beside = case when w.delivery < p_last then true else w.beside end
              from (select * from lapsed union all select * from by_name union all select * from by_topic) as c
             where w.ctid = c.place
            returning w.*
        loop
            if v_work.delivery > v_login.most_deliveries * (case when v_work.beside then 2 else 1 end) then
                perform mesh.give_up_work(v_work, format(
                    'Poison message detected: delivered %s times to workers of %s and never answered',
                    v_work.delivery - 1, v_work.topic));
            else
                v_left := v_left - 1;
                v_work.reply_channel := null;  -- not for the eyes of a worker login
                v_work.last_error := null;
                return next v_work;
            end if;
        end loop;
    end loop;
end
$$;
