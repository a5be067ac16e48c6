-- start_job: start a job from SQL, of any language, in the caller's transaction: it exists if that commits, and an engine
-- starts it at once then. For everybody; see docs/transactions.md.
-- data      what the graph gets as input.  job_id  null: an invented one.
-- search    search fields of the job, by name.  pending  wait for `resume`, at most so long.
-- Returns   the id of the job.
-- Raises    MS409 a live job has the id; MS404 nothing is active under the app id, or nobody subscribes to the topic;
--           MS400 the graph computes its ids, so that the caller has to give one; or an argument cannot be used.
--           Nothing is written then.
create or replace function mesh.start_job(
    app_id text, topic text, data jsonb default '{}', job_id text default null, entity text default null,
    search jsonb default null, pending interval default null, trace_id text default null, span_id text default null
) returns text language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare
    v_search text;
    v_made   record;
begin
    if length(start_job.job_id) not between 1 and 512 then
        raise exception sqlstate 'MS400' using message = 'a job id is a text of 1 to 512 characters';
    end if;
    if octet_length(start_job.entity) > 1000 then
        raise exception sqlstate 'MS400' using message = 'an entity is a text of at most 1000 bytes';
    end if;
    if jsonb_typeof(search) <> 'object' then
        raise exception sqlstate 'MS400' using message = 'search is an object: a value for each field';
    end if;
    if pending < interval '0' then
        raise exception sqlstate 'MS400' using message = 'pending must not be negative';
    end if;
    if pending > interval '100 years' then
        pending := interval '100 years';  -- an infinite one, and one beyond the last moment that there is
    end if;
    if search is not null then
        select jsonb_object_agg('_' || f.name, f.value)::text into v_search from jsonb_each_text(search) as f(name, value);
    end if;
    select * into v_made
      from mesh.try_start_job(start_job.app_id, start_job.topic, coalesce(data, '{}')::text, start_job.job_id, entity,
                              v_search, extract(epoch from pending)::double precision, start_job.trace_id,
                              start_job.span_id, null) as s;
    case v_made.outcome
        when 'started' then
            return v_made.job_id;
        when 'duplicate' then
            raise exception sqlstate 'MS409' using message = format(
                'Duplicate job: %s: a live job has this id; choose another, or read that job', start_job.job_id);
        when 'app' then
            raise exception sqlstate 'MS404' using message = format(
                'no app found for id %1$s: nothing is active under app %1$s, deploy and activate a version first (%2$s)',
                start_job.app_id,
                (select coalesce('apps here: ' || string_agg(a.app_id, ', ' order by a.app_id), 'there is no other app here')
                   from (select a.app_id from mesh.app as a where a.app_id <> start_job.app_id order by 1 limit 20) as a));
        when 'topic' then
            raise exception sqlstate 'MS404' using message = format(
                'no subscription found for topic %s in app %s for app version %s%s', start_job.topic, start_job.app_id,
                v_made.version,
                (select '; no graph is started by it, there are: ' || string_agg(t.topic, ', ' order by t.topic)
                   from (select g.graph ->> 'subscribes' as topic
                           from mesh.app_version as v
                          cross join lateral json_array_elements(v.graph #> '{document,app,graphs}') as g(graph)
                          where v.app_id = start_job.app_id and v.version = v_made.version
                            and g.graph ->> 'subscribes' not like '.%' order by 1 limit 20) as t));
        else
            raise exception sqlstate 'MS400' using message = format(
                'the graph on topic %s computes the ids of its jobs from their data, which Postgres cannot do: give job_id',
                start_job.topic);
    end case;
end
$$;
revoke all on function mesh.start_job(text, text, jsonb, text, text, jsonb, interval, text, text) from public;
