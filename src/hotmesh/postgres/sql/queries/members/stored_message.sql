-- stored_message: a message (number $2) to members of an app ($1) that was stored because of its size.
select mesh.stored_message($1, $2)
