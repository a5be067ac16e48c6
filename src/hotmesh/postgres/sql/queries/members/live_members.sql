-- live_members: the sessions of all members of an app ($1) that listen now.
select * from mesh.live_members($1)
