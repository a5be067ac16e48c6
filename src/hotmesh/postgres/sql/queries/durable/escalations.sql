-- escalations: work items of an app ($1): by id ($2), the key of their signal ($3), status ($4), role ($5), type ($6), subtype
-- ($7), workflow ($8); null: any. The most urgent first, of those the newest; at most $9.
select to_jsonb(e)::text as row
  from mesh.escalation as e
 where e.namespace = mesh.namespace() and e.app_id = $1
   and ($2::uuid is null or e.id = $2) and ($3::text is null or e.signal_key = $3)
   and ($4::text is null or e.status = $4) and ($5::text is null or e.role = $5)
   and ($6::text is null or e.type = $6) and ($7::text is null or e.subtype = $7)
   and ($8::text is null or e.workflow_id = $8)
 order by e.priority, e.created_at desc limit $9
