-- strip_jobs: of up to p_limit complete jobs, delete what their activities left, and keep the job with its data.
-- p_keep_hmark: what ran stays on record, with its outcome and its times; only what it left is deleted.
-- It goes through the table of jobs, 4,000 pages at most at a time, and on from where the call before, of the same app and entities,
-- has ended; p_restart: from the beginning. No index tells which jobs are to be stripped: it would have to be written at the end of each job.
-- Writes   job.pruned_at, so that each is stripped once. A job with a dead letter stays whole: it may be requeued. Jobs that somebody is
--          working on are left for the next time. upkeep.at_page, where to go on.
-- Returns  jobs stripped, and records deleted (or emptied); more: the end of the table is not reached.
create or replace function mesh.strip_jobs(
    p_app text, p_entities text[], p_keep_hmark boolean, p_limit integer, p_restart boolean default false,
    out jobs integer, out records integer, out more boolean
) language plpgsql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_task     constant text := 'strip' || coalesce(' ' || array_to_string(p_entities, ' '), '');
    v_pages    constant bigint := pg_relation_size('mesh.job') / current_setting('block_size')::bigint;
    v_page     bigint;
    v_stripped uuid[];
    v_last     bigint;
begin
    select u.at_page into v_page from mesh.upkeep as u where u.app_id = p_app and u.task = v_task and not p_restart;
    v_page := coalesce(v_page, 0);
    with done as materialized (
        select j.ctid as place from mesh.job as j
         where j.ctid >= format('(%s,0)', v_page)::tid and j.ctid < format('(%s,0)', v_page + 4000)::tid
           and (j.app_id = p_app) is true and j.status = 0 and j.pruned_at is null
           and (j.expires_at is null or j.expires_at > mesh.clock())
           and (p_entities is null or j.entity = any (p_entities))
           and not exists (select from mesh.dead_letter as d where d.generation = j.generation)
         limit p_limit
           for update skip locked
    ), stripped as (
        update mesh.job as j set pruned_at = mesh.clock() from done as d
         where j.ctid = d.place
        returning j.generation
    )
    select coalesce(array_agg(s.generation), '{}'), (select max((d.place::text::point)[0])::bigint from done as d)
      into v_stripped, v_last from stripped as s;
    jobs := cardinality(v_stripped);
    v_page := case when jobs >= p_limit then v_last else v_page + 4000 end;
    more := v_page < v_pages;
    insert into mesh.upkeep as u (app_id, task, due_at, at_page)
    values (p_app, v_task, mesh.clock(), case when more then v_page end)
    on conflict on constraint upkeep_pk do update set at_page = excluded.at_page, due_at = excluded.due_at;
    if p_keep_hmark then
        update mesh.operation as o set input = null, result = null, error = null where o.generation = any (v_stripped);
        update mesh.activity as a set output = null, hook = null, error = null, seen = null
         where a.generation = any (v_stripped);
    else
        delete from mesh.operation as o where o.generation = any (v_stripped);
        delete from mesh.activity as a where a.generation = any (v_stripped);
    end if;
    get diagnostics records = row_count;
end
$$;
