-- mark_app: the app ($1) is there, if it was not before; durable functions need no version of it.
insert into mesh.app (app_id) values ($1) on conflict on constraint app_pk do nothing
