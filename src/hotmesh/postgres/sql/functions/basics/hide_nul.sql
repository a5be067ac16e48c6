-- hide_nul: a JSON text without the escape of U+0000, for the functions of Postgres that take JSON apart and refuse it; show_nul puts
-- it back. A type json column keeps its text as it is, so that nothing is lost on the way.
create or replace function mesh.hide_nul(p_json json) returns json language sql immutable as $$
    select replace(p_json::text, chr(92) || 'u0000', chr(92) || 'uf8ff' || chr(92) || 'uf8fe' || chr(92) || 'uf8fd')::json
$$;
