-- settle_escalation: resolve or cancel a work item ($2) of an app ($1), and wake who waits.
select * from mesh.settle_escalation($1, $2, $3, $4::text::jsonb, $5::text::json, $6, $7)
