-- show_nul: the reverse of hide_nul, for any part of what it returned.
create or replace function mesh.show_nul(p_json json) returns json language sql immutable as $$
    select replace(p_json::text, chr(92) || 'uf8ff' || chr(92) || 'uf8fe' || chr(92) || 'uf8fd', chr(92) || 'u0000')::json
$$;
