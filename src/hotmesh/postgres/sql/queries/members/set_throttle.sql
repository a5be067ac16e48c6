-- set_throttle: store a rate ($4) of scopes ($2) and a topic ($3) of an app ($1), and tell its members ($5).
select mesh.set_throttle($1, $2, $3, $4, $5)
