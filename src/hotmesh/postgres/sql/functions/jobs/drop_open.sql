-- drop_open: delete whatever is still to come of jobs: their work, messages, timers and waits.
-- p_pending: also what worker logins may add to (worker_pending); not of a job that a dead letter can bring back whole.
-- What a job has left (activity, dead_letter) stays, and what is not in a job's own rows: its work items.
-- The caller switches sequential scans off: plans are made once, maybe while the tables are empty.
create or replace function mesh.drop_open(p_generations uuid[], p_pending boolean default true) returns void
language plpgsql as $$
begin
    delete from mesh.worker_stream where generation = any (p_generations);
    if p_pending then
        delete from mesh.worker_pending where generation = any (p_generations);
    end if;
    delete from mesh.engine_stream where generation = any (p_generations);
    delete from mesh.timer where generation = any (p_generations);
    delete from mesh.wait where generation = any (p_generations);
end
$$;
