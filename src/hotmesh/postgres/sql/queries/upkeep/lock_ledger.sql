-- lock_ledger: nobody else migrates until the transaction ends.
lock table mesh.schema_migration in exclusive mode
