-- refuse_moved: a trigger on every table of a namespace that is moved to another server, see postgres/moving.py: nothing is written here.
-- The state is that of a server which has become a standby, so whoever meets it connects again, and holds nothing against a job.
create or replace function mesh.refuse_moved() returns trigger language plpgsql as $$
begin
    raise exception '%', tg_argv[0] using errcode = '25006';
end
$$;
