"""Remembers. Tables, stored functions and queries; the only package that imports the driver.

What an app keeps is reached through a `Database`, and done by functions that take it first. In reading order:

database       one app in one schema: its connections, its statements, how its values are written
commits        commits steps, and finds out what became of those whose commit was not answered
steps          steps as the arguments of one statement; `sections`, `extras` and `arrays`: how they travel
loading        jobs and their records, as a step needs them
engine_stream  what waits for engines: messages and timers
work           what waits for workers: `WorkQueue`, and the one of ordinary logins
rows           rows as the data of the core
signals        signals from outside, one or to many jobs
escalations    work items for people
measures       what triggers count
definitions    the versions of an app
activation     who may activate a version, and the switch
members        who is there, how fast they may go, what they tell each other
subscriptions  which members want what is announced
notifications  channels, and NOTIFY
operations     what operators do to jobs and dead letters
callers        what is done in a transaction of the caller's
locks          turns that processes take by advisory locks
pruning        deleting what is over, in turns
migrate        brings the tables of a namespace up to date

Rooms: `connect` (connections to Postgres), `local` (the embedded one), `logins` (worker logins), `sql` (all statements).
A commit goes `Batch.add` → `commits.commit` → `sql/functions/steps/commit_steps.sql`.
"""
