-- end_stalled_workers: end sessions of worker logins of an app ($1) whose transaction is open for $2 seconds; their roles.
select mesh.end_stalled_workers($1, $2)
