-- take_guid: let this session, which listens, have a guid ($2) of an app ($1) until it ends; $3: as an engine.
select mesh.take_guid($1, $2, $3)
