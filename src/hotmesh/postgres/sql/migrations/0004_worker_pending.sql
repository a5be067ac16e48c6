-- Which worker login gave a pending answer, so that it, and no other one, may add the answers that follow.
create table mesh.worker_pending (
    app_id       text        not null,
    role_name    text        not null,
    topic        text        not null,
    job_id       text        not null,
    generation   uuid        not null,
    activity_id  text        not null,
    dimension    integer[]   not null,
    added        integer     not null default 0,
    final_guid   text,
    created_at   timestamptz not null,
    constraint worker_pending_pk primary key (generation, activity_id, dimension)
);
comment on table mesh.worker_pending is
    'Activities that a worker login has answered with "pending": it may add their further answers. Gone with the last one.';
comment on column mesh.worker_pending.added is 'Answers added so far.';
comment on column mesh.worker_pending.final_guid is 'The id of the last answer, until an engine has applied it.';
