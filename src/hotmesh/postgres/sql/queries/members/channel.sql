-- channel: where the processes of an app ($1) hear of what there is to do.
select mesh.channel($1)
