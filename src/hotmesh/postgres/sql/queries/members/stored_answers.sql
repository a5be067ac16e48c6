-- stored_answers: the stored messages of an app ($1) in which the id of a question ($2) stands.
select q.message from mesh.quorum_message as q
 where q.app_id = $1 and q.expires_at > mesh.clock() and strpos(q.message, $2) > 0
