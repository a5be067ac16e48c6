-- gone_members: the guids of members of an app ($1) that have died.
select * from mesh.gone_members($1) as guid
