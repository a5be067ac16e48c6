-- send_message: put a message for a job on the engine stream.
-- $1 app, $2 job, $3 generation, $4 id of the message, $5 kind, $6 activity, $7 address, $8 status, $9 code, $10 data,
-- $11 hint.
select mesh.send_message($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
