"""Advances the jobs of an app: decides by their programs, and commits what they decide.

Nothing in memory is needed for correctness. A process that dies leaves rows: work that another engine gives
back within seconds (at the latest, its lease lapses), messages that become visible to others within `HANDOVER` seconds, timers and waits.

Two ways in. What happens in this process to a job (an answer of a worker here, a message of a job here) becomes a step at
once, which goes out with the next group commit; a job that is not in memory is loaded for it. Anything else arrives on the engine stream or as a due timer: the
jobs are locked, loaded, advanced and committed in one transaction. Both meet in the compare-and-set of the job row.

    a caller starts a job     Starts.start ─▶ Program.start ─▶ GroupCommit.submit(StartTicket) ┐
    an answer comes           Advances.deliver ─▶ GroupCommit.submit(EventsTicket)             │
                                                                                               ▼
    the group commit          gather (EventsTicket: Advances.compute ─▶ Program.advance) ─▶ dispatch ─▶ attempt
                                ─▶ CommitWriter.write ─▶ commits.commit ─▶ settle ─▶ AfterCommit.apply
    a row is due              EngineStream: lock ─▶ load ─▶ Program.advance ─▶ CommitWriter.write ─▶ AfterCommit.apply

In reading order:

engine         the parts put together: what others call, the life of an engine
ticket         what travels through the group commit, and what can become of it
group_commit   gathers what is ready, attempts to commit it, settles what became of it
writer         the one commit, for both ways in
recovery       what becomes of a commit that had no answer, or whose events somebody else was first with
starts         begins jobs: a step, its ticket, and the caller who waits
advances       advances jobs that are in memory: their events, the step, its ticket
loader         loads jobs that have events and are not in memory
stream         the engine stream: what is due, in one transaction
crash_loop     finds the event of which engines die
due_events     looks at it, from where on something may be left
due_transaction  what a transaction of it has done so far
broadcasts     signals to all jobs that are listed under a facet
after_commit   what a committed step means for this process: who is told, what starts
job_cache      the jobs in memory, bounded by number and bytes
in_flight      what has begun and not ended; stopping waits for it
rate           how fast the engine takes messages, and what follows when it is slowed
step_watch     names steps that take long, and cuts them off
trial          whether a step is itself the reason why it is refused
duress         an engine whose messages take long slows down, and tells the others
limits         how much is taken at once, and how long is waited for what
"""
