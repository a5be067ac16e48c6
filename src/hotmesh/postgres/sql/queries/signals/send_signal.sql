-- send_signal: deliver a signal under the first key that somebody waits under.
-- $1 app, $2 topic, $3 keys, $4 data, $5 status, $6 code, $7 seconds for which it is kept, $8 hint.
select mesh.send_signal($1, $2, $3, $4, $5, $6, $7, $8)
