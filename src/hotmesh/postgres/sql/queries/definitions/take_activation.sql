-- take_activation: this session may activate versions of an app ($1), until it lets go of it or ends.
select pg_advisory_lock(mesh.activation_key($1))
