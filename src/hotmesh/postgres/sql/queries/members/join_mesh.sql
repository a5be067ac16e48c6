-- join_mesh: count this session, which listens, among the members of an app ($1); with an engine ($2), or without.
select mesh.join_mesh($1, $2)
