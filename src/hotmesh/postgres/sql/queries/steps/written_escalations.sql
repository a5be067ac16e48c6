-- written_escalations: work items of jobs ($2 of app $1) as the commit of moment $3 has left them.
select e.workflow_id, to_json(e)::text as row
  from mesh.escalation as e
 where e.app_id = $1 and e.workflow_id = any($2) and e.updated_at = $3
 order by e.created_at, e.id  -- what has ended, before what began with its end
