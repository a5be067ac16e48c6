-- free_expired_ids: remove jobs of these ids whose time is over, so that the ids can be used again.
-- Locks    those job rows, but for any that somebody else is removing: maybe in a transaction that stays open for long.
-- Returns  how many were removed.
create or replace function mesh.free_expired_ids(p_app text, p_job_ids text[]) returns integer language plpgsql as $$
declare
    v_gone uuid[];
begin
    with gone as (
        delete from mesh.job as j
         where j.app_id = p_app and j.job_id = any (array(
                select k.job_id from mesh.job as k
                 where k.app_id = p_app and k.job_id = any (p_job_ids) and k.expires_at <= mesh.clock()
                 order by k.job_id for update skip locked))
        returning j.generation
    )
    select coalesce(array_agg(g.generation), '{}') into v_gone from gone as g;
    perform mesh.forget_generations(v_gone);
    return cardinality(v_gone);
end
$$;
