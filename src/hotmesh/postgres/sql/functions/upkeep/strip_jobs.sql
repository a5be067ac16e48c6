-- strip_jobs: of up to p_limit complete jobs, delete what their activities left, and keep the job with its data.
-- p_keep_hmark: what ran stays on record, with its outcome and its times; only what it left is deleted.
-- Writes   job.pruned_at, so that each is stripped once. A job with a dead letter stays whole: it may be requeued.
-- Returns  jobs stripped, and records deleted (or emptied).
create or replace function mesh.strip_jobs(
    p_app text, p_entities text[], p_keep_hmark boolean, p_limit integer, out jobs integer, out records integer
) language plpgsql as $$
declare
    v_stripped uuid[];
begin
    with done as materialized (
        select j.job_id from mesh.job as j
         where j.app_id = p_app and j.status = 0 and j.pruned_at is null
           and (j.expires_at is null or j.expires_at > mesh.clock())
           and (p_entities is null or j.entity = any (p_entities))
           and not exists (select from mesh.dead_letter as d where d.generation = j.generation)
         limit p_limit
           for update skip locked
    ), stripped as (
        update mesh.job as j set pruned_at = mesh.clock() from done as d
         where j.app_id = p_app and j.job_id = d.job_id
        returning j.generation
    )
    select coalesce(array_agg(s.generation), '{}') into v_stripped from stripped as s;
    jobs := cardinality(v_stripped);
    if p_keep_hmark then
        update mesh.activity as a set output = null, hook = null, error = null, seen = null
         where a.generation = any (v_stripped);
    else
        delete from mesh.activity as a where a.generation = any (v_stripped);
    end if;
    get diagnostics records = row_count;
end
$$;
