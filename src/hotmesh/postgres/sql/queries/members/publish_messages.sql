-- publish_messages: send messages ($3) to members of an app ($1), each on its channel ($2); one over $4 bytes is stored.
select mesh.publish_messages($1, $2, $3, $4)
