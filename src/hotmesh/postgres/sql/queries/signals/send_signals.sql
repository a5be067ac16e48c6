-- send_signals: deliver many signals, each under its key.
-- $1 app, $2 topic, $3 keys, $4 data of each, $5 seconds for which they are kept, $6 broadcast that ends with it, $7 hint.
select mesh.send_signals($1, $2, $3, $4, $5, $6, $7)
