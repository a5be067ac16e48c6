-- worker_check_batch: raise 22023 or 54000 unless these arrays name at most 1000 pieces of work, one per position.
create or replace function mesh.worker_check_batch(p_generation uuid[], p_activity text[], p_dimension text[]) returns integer
language plpgsql immutable as $$
declare
    v_count constant integer := cardinality(p_generation);
begin
    if v_count > 1000 then
        raise exception 'at most 1000 pieces of work at once' using errcode = '54000';
    end if;
    if v_count is null or cardinality(p_activity) is distinct from v_count
       or cardinality(p_dimension) is distinct from v_count
       or array_ndims(p_generation) > 1 or array_ndims(p_activity) > 1 or array_ndims(p_dimension) > 1 then
        raise exception 'the arrays that name work have one dimension and one length' using errcode = '22023';
    end if;
    return v_count;
end
$$;
