-- worker_check_encoded: raise 22023 for an answer that looks encoded where nothing of its job is: no engine of an app without a codec could
-- ever read it. Where the app has a codec, the job's input is encoded, or that of its work.
create or replace function mesh.worker_check_encoded(
    p_app text, p_job_id text, p_generation uuid, p_activity text, p_dimension integer[], p_data text
) returns void language plpgsql stable as $$
begin
    if starts_with(ltrim(p_data, ' ' || chr(9) || chr(10) || chr(13)), '"') is not true
       or not starts_with(mesh.hide_nul(p_data::json) #>> '{}', 'hotmesh.codec:') then
        return;
    end if;
    if not exists (select from mesh.job as j
                    where j.app_id = p_app and j.job_id = p_job_id and j.generation = p_generation
                      and (starts_with(j.input::text, '"hotmesh.codec:') or starts_with(j.data::text, '"hotmesh.codec:')))
       and not exists (select from mesh.worker_stream as s
                        where s.generation = p_generation and s.activity_id = p_activity and s.dimension = p_dimension
                          and starts_with(s.data::text, '"hotmesh.codec:')) then
        raise exception 'the answer looks encoded, and job % of app % is not: without the codec nobody could read it',
            p_job_id, p_app using errcode = '22023';
    end if;
end
$$;
