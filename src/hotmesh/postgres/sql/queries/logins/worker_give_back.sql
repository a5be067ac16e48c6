-- worker_give_back: as give_back_work, for the worker login, of all its topics.
select mesh.worker_give_back($1, $2)
