-- like_pattern: a pattern of topics (* is any run of characters) as one of LIKE; everything else stands for itself.
create or replace function mesh.like_pattern(p_pattern text) returns text language sql immutable as $$
    select replace(replace(replace(replace(
               p_pattern, chr(92), chr(92) || chr(92)), '%', chr(92) || '%'), '_', chr(92) || '_'), '*', '%')
$$;
