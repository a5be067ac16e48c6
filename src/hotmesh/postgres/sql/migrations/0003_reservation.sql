-- Which statement reserved a piece of work, so that what a lost connection left unanswered can be told and given back.
alter table mesh.worker_stream add column reservation bigint;
comment on column mesh.worker_stream.reservation is 'The claim or commit that reserved it.';

-- These have a further parameter now, with a default: processes of the release before call the new ones.
drop function if exists mesh.claim_work(text, text, text[], integer[], double precision);
drop function if exists mesh.claim_named_work(text, text, text[], text[], text[], integer[], double precision);
drop function if exists mesh.give_back_work(text, text, text[]);
drop function if exists mesh.worker_claim(text, text[], text[], text[], integer[], double precision);
drop function if exists mesh.worker_give_back(text);
