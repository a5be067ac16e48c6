-- forget_generations: remove everything that carries these generations, except the job rows themselves.
create or replace function mesh.forget_generations(p_generations uuid[]) returns void language plpgsql
  set enable_seqscan = off as $$
begin
    perform mesh.drop_open(p_generations);
    delete from mesh.activity where generation = any (p_generations);
    delete from mesh.operation where generation = any (p_generations);
    delete from mesh.dead_letter where generation = any (p_generations);
end
$$;
