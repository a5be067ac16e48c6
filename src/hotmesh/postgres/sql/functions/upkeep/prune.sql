-- prune: delete up to p_limit rows of each kind that has been over for longer than p_expire; never a live job.
-- p_jobs: expired jobs with all that belongs to them. p_streams (or each of the two): dead letters.
-- p_attributes: what the activities of complete jobs left (p_keep_hmark: all but that they ran). p_entities limits jobs
-- and attributes. p_prune_transient: expired jobs without an entity. p_signals: early signals and subscriptions whose
-- time is over, whatever p_expire says. p_restart: of attributes, from the first job on, whatever was stripped before (strip_jobs).
-- Locks    one prune of an app at a time; rows that somebody is working on are skipped.
-- Returns  how many rows of each kind went; more: some kind may have further ones, so call it again.
create or replace function mesh.prune(
    p_app text, p_expire interval default '7 days', p_jobs boolean default true, p_streams boolean default true,
    p_engine_streams boolean default null, p_worker_streams boolean default null,
    p_engine_streams_expire interval default null, p_worker_streams_expire interval default null,
    p_attributes boolean default false, p_keep_hmark boolean default false, p_entities text[] default null,
    p_prune_transient boolean default false, p_signals boolean default true, p_limit integer default 10000,
    p_restart boolean default false,
    out jobs integer, out engine_streams integer, out worker_streams integer, out attributes integer,
    out transient integer, out marked integer, out signals integer, out subscriptions integer, out more boolean
) language plpgsql as $$
declare
    v_keep   constant double precision := extract(epoch from p_expire);
    v_engine constant double precision := coalesce(extract(epoch from p_engine_streams_expire), v_keep);
    v_worker constant double precision := coalesce(extract(epoch from p_worker_streams_expire), v_keep);
    v_left   boolean := false;
begin
    perform pg_advisory_xact_lock(hashtextextended(mesh.namespace() || '.' || p_app, 7302));
    jobs := 0; engine_streams := 0; worker_streams := 0; attributes := 0;
    transient := 0; marked := 0; signals := 0; subscriptions := 0;
    if p_jobs then
        jobs := mesh.prune_jobs(p_app, v_keep, p_entities, false, p_limit);
    end if;
    if p_prune_transient then
        transient := mesh.prune_jobs(p_app, v_keep, null, true, p_limit);
    end if;
    if coalesce(p_engine_streams, p_streams) then
        engine_streams := mesh.prune_messages(p_app, 'engine', v_engine, p_limit);
    end if;
    if coalesce(p_worker_streams, p_streams) then
        worker_streams := mesh.prune_messages(p_app, 'worker', v_worker, p_limit);
    end if;
    if p_attributes then
        select s.jobs, s.records, s.more into marked, attributes, v_left
          from mesh.strip_jobs(p_app, p_entities, p_keep_hmark, p_limit, p_restart) as s;
    end if;
    if p_signals then
        signals := mesh.prune_signals(p_app, p_limit);
        subscriptions := mesh.prune_subscriptions(p_app, p_limit);
    end if;
    more := v_left or greatest(jobs, transient, engine_streams, worker_streams, marked, signals, subscriptions) >= p_limit;
end
$$;
