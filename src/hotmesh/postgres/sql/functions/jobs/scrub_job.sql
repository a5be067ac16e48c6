-- scrub_job: remove a job, in any state, with everything that belongs to it.
-- Locks    the job row: a step that is being written comes first, one that comes later is refused.
-- Returns  whether there was such a job.
create or replace function mesh.scrub_job(p_app text, p_job_id text) returns boolean language plpgsql as $$
declare
    v_generation uuid;
begin
    delete from mesh.job as j where j.app_id = p_app and j.job_id = p_job_id returning j.generation into v_generation;
    if not found then
        return false;
    end if;
    perform mesh.forget_generations(array[v_generation]);
    update mesh.escalation as e set status = 'cancelled', updated_at = mesh.clock()
     where e.app_id = p_app and e.workflow_id = p_job_id and e.status = 'pending';
    return true;
end
$$;
