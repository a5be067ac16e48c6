-- forget_generations: remove everything that carries these generations, except the job rows themselves.
create or replace function mesh.forget_generations(p_generations uuid[]) returns void language plpgsql
  set enable_seqscan = off as $$
begin
    delete from mesh.activity where generation = any (p_generations);
    delete from mesh.worker_stream where generation = any (p_generations);
    delete from mesh.worker_pending where generation = any (p_generations);
    delete from mesh.engine_stream where generation = any (p_generations);
    delete from mesh.timer where generation = any (p_generations);
    delete from mesh.wait where generation = any (p_generations);
    delete from mesh.dead_letter where generation = any (p_generations);
end
$$;
