-- worker_check_topics: raise 42501 unless the login may take work of all these topics, 54000 for too many of them.
create or replace function mesh.worker_check_topics(p_login mesh.worker_credential, p_topics text[]) returns void
language plpgsql stable as $$
declare
    v_topic text;
begin
    if cardinality(p_topics) > 1000 or array_ndims(p_topics) > 1 then
        raise exception 'at most 1000 topics at once' using errcode = '54000';
    end if;
    foreach v_topic in array coalesce(p_topics, '{}'::text[]) loop
        if v_topic is null or v_topic <> all (p_login.topics) then
            raise exception 'access denied: stream_name "%" not in allowed streams', left(v_topic, 200)
                using errcode = '42501';
        end if;
    end loop;
end
$$;
