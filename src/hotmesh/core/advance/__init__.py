"""Decides what events do to a job.

advance        `start` and `advance`: from a request, or a job and events, to a step
builder        the step in the making, and the queue of what is still to do
beginnings     jobs begin: created, started later, resumed, as a child
activities     one module per type: what an activity does when it is entered
joins          several branches become one
outcomes       an activity has an answer or an error: maps, transitions, accounts
life           the table of what can become of one pass of an activity
endings        jobs end: nothing open, an error, an interrupt
telling        the parent, the caller and the subscribers are told
expressions    what an activity's expressions say in a context
job_draft      the working copy of a job
join_state     the working copy of what its joins wait for
metadata       what jobs and activities say of themselves (`jid`, `gid`, …)
limits         settings that bound a step
trace          the spans of a step
reopen         whether a failed activity can be opened again

Each uses only what stands below it in this order: advance, activities, beginnings, outcomes, endings, telling and joins,
builder, job_draft.
"""
