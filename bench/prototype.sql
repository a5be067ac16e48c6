-- The bare commit path: what the steps of the bench's flows must write whatever else an engine does, and nothing else. Into the
-- tables of this project, so that all rows and indexes are kept up as they are for its own engine.

create schema prototype;

-- commit: write steps of any number of jobs in one statement.
-- p_token: marks the commit in the rows of its jobs.
-- Sections, each a JSON array of arrays, null where there is nothing:
--   p_created   jobs: id, generation, version, topic, status, expire, input, moment
--   p_changed   jobs by their versions: id, generation, seq, status, data
--   p_records   generation, activity, dimension, output, started, ended
--   p_work      generation, activity, dimension, job id, topic, data
--   p_answered  work to delete: generation, activity, dimension
-- Returns  how many of the jobs to change were at their versions. Who calls this has each job to itself: less than all is an error.
create function prototype.commit(
    p_app text, p_token bigint, p_created text, p_changed text, p_records text, p_work text, p_answered text
) returns integer language plpgsql
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_now     constant timestamptz := clock_timestamp();
    v_changed integer := 0;
begin
    if p_created is not null then
        insert into hotmesh.job (
            app_id, job_id, generation, version, topic, seq, token, status, expire, input, created_at, updated_at)
        select p_app, c.r ->> 0, (c.r ->> 1)::uuid, c.r ->> 2, c.r ->> 3, 1, p_token, (c.r ->> 4)::integer,
               (c.r ->> 5)::double precision, (c.r ->> 6)::json, (c.r ->> 7)::timestamptz, v_now
          from jsonb_array_elements(p_created::jsonb) as c(r);
    end if;

    if p_changed is not null then
        with locked as materialized (
            select u.r, j.place
              from (select u.r from jsonb_array_elements(p_changed::jsonb) as u(r) order by u.r ->> 0) as u
             cross join lateral (
                select j.ctid as place from hotmesh.job as j
                 where j.app_id = p_app and j.job_id = u.r ->> 0 and j.generation = (u.r ->> 1)::uuid
                   and j.seq = (u.r ->> 2)::bigint
                   for update skip locked) as j
        ), changed as (
            update hotmesh.job as j
               set seq = j.seq + 1, token = p_token, status = (w.r ->> 3)::integer, data = (w.r ->> 4)::json, updated_at = v_now,
                   ended_at = case when (w.r ->> 3)::integer = 0 then v_now end,
                   expires_at = case when (w.r ->> 3)::integer = 0 then v_now + j.expire * interval '1 second' end
              from locked as w
             where j.ctid = w.place
            returning 1
        )
        select count(*) into v_changed from changed;
    end if;

    if p_answered is not null then
        delete from hotmesh.worker_stream as s
         using (select (d.r ->> 0)::uuid as generation, d.r ->> 1 as activity, (d.r ->> 2)::integer[] as dimension
                  from jsonb_array_elements(p_answered::jsonb) as d(r)
                offset 0) as w
         where s.generation = any (array[w.generation]) and s.activity_id = w.activity and s.dimension = w.dimension;
    end if;

    if p_records is not null then
        insert into hotmesh.activity (
            generation, activity_id, dimension, type, state, code, output, started_at, ended_at)
        select (a.r ->> 0)::uuid, a.r ->> 1, (a.r ->> 2)::integer[], 'worker', 'closed', 200, (a.r ->> 3)::json,
               (a.r ->> 4)::timestamptz, (a.r ->> 5)::timestamptz
          from jsonb_array_elements(p_records::jsonb) as a(r);
    end if;

    if p_work is not null then
        insert into hotmesh.worker_stream (
            app_id, generation, activity_id, dimension, job_id, topic, data, workflow_name, visible_at, created_at)
        select p_app, (w.r ->> 0)::uuid, w.r ->> 1, (w.r ->> 2)::integer[], w.r ->> 3, w.r ->> 4, (w.r ->> 5)::json, 'bench', v_now, v_now
          from jsonb_array_elements(p_work::jsonb) as w(r);
    end if;

    return v_changed;
end
$$;
