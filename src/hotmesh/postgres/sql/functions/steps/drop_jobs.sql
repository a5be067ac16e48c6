-- drop_jobs: the part of commit_steps for jobs that end before they are done; called by it, in its transaction.
-- p_rows: as o_rows. Those that descend pass it on: jobs that they await are interrupted.
-- Writes   deletes what is still to come of the jobs (drop_open), cancels their work items, and puts messages for the
--          awaited jobs on the engine stream; nothing of the refused steps.
-- Returns  whether there is such a message.
create or replace function mesh.drop_jobs(
    p_app text, p_rows jsonb, p_refused integer[], p_now timestamptz
) returns boolean language plpgsql as $$
declare
    v_dropped    uuid[];
    v_descending uuid[];
    v_job_ids    text[];
begin
    select array_agg(w.generation), array_agg(w.generation) filter (where w.descend), array_agg(w.job_id)
      into v_dropped, v_descending, v_job_ids
      from (select (o.r ->> 1)::uuid as generation, (o.r ->> 2)::boolean as descend, o.r ->> 3 as job_id
              from jsonb_array_elements(p_rows) as o(r)
             where not (o.r ->> 0)::integer = any (p_refused)) as w;
    perform mesh.drop_open(v_dropped);
    update mesh.escalation as e set status = 'cancelled', updated_at = p_now
     where e.app_id = p_app and e.workflow_id = any (v_job_ids) and e.status = 'pending';
    if v_descending is null then
        return false;
    end if;
    insert into mesh.engine_stream (
        app_id, job_id, generation, message_id, kind, activity_id, dimension, status, code, data, visible_at, created_at)
    select j.app_id, j.job_id, j.generation, 'interrupt:' || j.parent_generation, 'interrupt', '', '{}', 'success', 200,
           '{"descend": true}', p_now, p_now
      from mesh.job as j
     where j.parent_generation = any (v_descending) and not j.severed and j.status > 0
    on conflict on constraint engine_stream_pk do nothing;
    return found;
end
$$;
