-- show_nul: the reverse of hide_nul, for any part of what it returned.
create or replace function mesh.show_nul(p_json json) returns json language sql immutable as $$
    select replace(p_json::text, '\uf8ff\uf8fe\uf8fd', '\u0000')::json
$$;
