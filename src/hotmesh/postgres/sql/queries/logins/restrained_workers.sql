-- restrained_workers: the worker logins of an app ($1) that get no work at the moment, and were not told of for a minute.
select mesh.restrained_workers($1)
