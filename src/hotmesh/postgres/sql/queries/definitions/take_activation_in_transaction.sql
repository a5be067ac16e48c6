-- take_activation_in_transaction: as take_activation, until the transaction ends.
select pg_advisory_xact_lock(mesh.activation_key($1))
