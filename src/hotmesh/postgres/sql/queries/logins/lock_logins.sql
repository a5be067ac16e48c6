-- lock_logins: nobody else makes or changes worker logins until the transaction ends.
lock table mesh.worker_credential in share row exclusive mode
