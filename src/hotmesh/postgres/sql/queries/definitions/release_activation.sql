-- release_activation: let others activate versions of an app ($1).
select pg_advisory_unlock(mesh.activation_key($1))
