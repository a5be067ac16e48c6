-- cancelled_escalations: work items of a job ($2 of app $1) that the current transaction has cancelled.
select to_json(e)::text as row
  from mesh.escalation as e
 where e.app_id = $1 and e.workflow_id = $2 and e.status = 'cancelled'
   and e.updated_at >= least(transaction_timestamp(), mesh.clock())
 order by e.id
