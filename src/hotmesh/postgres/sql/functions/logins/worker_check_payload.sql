-- worker_check_payload: the data of an answer as it is stored, if every engine can read it; what comes from a worker login
-- was written by anybody. An error is an object with message and code, and perhaps stack, error, and what is known of an
-- exception: type, activity, topic, job_id, attempt, attempts.
-- Raises   54000 if it is larger than p_most bytes, 22023 if it is not JSON that can be stored: broken text, numbers beyond
--          double precision, more than 200 levels.
create or replace function mesh.worker_check_payload(p_data text, p_status text, p_code integer, p_most integer)
returns text language plpgsql immutable as $$
declare
    v_data jsonb;
begin
    if p_status is null or p_status not in ('success', 'pending', 'error') then
        raise exception 'the status of an answer is success, pending or error' using errcode = '22023';
    end if;
    if p_code is null then
        raise exception 'an answer has a code' using errcode = '22023';
    end if;
    if octet_length(p_data) > p_most then
        raise exception 'an answer has at most % bytes, this one has %', p_most, octet_length(p_data)
            using errcode = '54000';
    end if;
    begin
        -- jsonb is stricter than json: it refuses halves of surrogate pairs.
        v_data := mesh.hide_nul(coalesce(p_data, '{}')::json)::jsonb;
    exception when others then
        raise exception 'the data of an answer is not JSON that can be stored: %', sqlerrm using errcode = '22023';
    end;
    if jsonb_path_exists(
        v_data,
        'strict $.** ? (@.type() == "number") ? (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308)') then
        raise exception 'a number in an answer is beyond double precision' using errcode = '22023';
    end if;
    if jsonb_path_exists(v_data, 'strict $.**{200} ? (@.type() == "object" || @.type() == "array")') then
        raise exception 'an answer has at most 200 levels' using errcode = '22023';
    end if;
    if p_status <> 'error' then
        return coalesce(p_data, '{}');
    end if;
    if jsonb_typeof(v_data) = 'string' and starts_with(v_data #>> '{}', 'hotmesh.codec:') then
        return p_data;  -- encoded as a whole; whoever decodes it looks at what it is
    end if;
    if jsonb_typeof(v_data) <> 'object' then
        raise exception 'the data of an error is an object' using errcode = '22023';
    end if;
    -- As show_nul does it; jsonb has turned the escapes into characters.
    return replace((
        jsonb_build_object('message', coalesce(v_data ->> 'message', 'unknown'), 'code', p_code)
        || case when v_data ? 'stack' then jsonb_build_object('stack', right(v_data ->> 'stack', 20000)) else '{}' end
        || (select coalesce(jsonb_object_agg(e.key, case jsonb_typeof(e.value) when 'string'
                                                     then to_jsonb(left(e.value #>> '{}', 512)) else e.value end), '{}')
              from jsonb_each(v_data) as e
             where (e.key in ('type', 'activity', 'topic', 'job_id') and jsonb_typeof(e.value) = 'string')
                or (e.key in ('attempt', 'attempts') and jsonb_typeof(e.value) = 'number'))
        || case when jsonb_typeof(v_data -> 'error') = 'object' then jsonb_build_object('error', v_data -> 'error')
                else '{}' end)::text, chr(63743) || chr(63742) || chr(63741), chr(92) || 'u0000');
end
$$;
