-- give_up_work: move work that the caller holds to the dead letters, and answer its activity with error 598.
create or replace function mesh.give_up_work(p_work mesh.worker_stream, p_reason text) returns void language plpgsql as $$
begin
    perform mesh.bury_work(
        p_work.app_id, p_work.reserved_by, p_work.generation, p_work.activity_id, p_work.dimension::text, p_reason,
        json_build_object('message', p_reason || ' (dead letter {dead_letter})', 'code', 598)::text, '{"e":1}');
end
$$;
