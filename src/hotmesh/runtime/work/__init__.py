"""Runs callbacks: what a process has of work, from its reservation to its written answer.

In reading order:

- `worker`: what users give: a callback, its topic, its retries.
- `served`: what this process serves: each worker with its slots, and who takes which work.
- `slots`: how the engine passes on the work of its own steps; the life of a slot and of a piece of work.
- `claiming`: claims what is on the stream for slots that are free.
- `alone`: tries work alone that may be the reason why processes die.
- `company`: who else runs work in this process, and stands still meanwhile.
- `running`: runs the callbacks, one task for each call, and cuts off those that take too long.
- `outcome`: what a callback is given, and what is made of what it returns or raises.
- `answers`: where an outcome goes: to the engine of this process, to the stream, to a later try.
- `told`: what engines elsewhere were told, until it is known what became of it.
- `answer_writer`: writes answers, retries and dead letters.
- `lease`: renews the leases of held work, from a thread of its own.
- `lost_reservations`: gives back what was reserved for this process without its knowing.
- `workers`: all of it together; what the instance and the other members ask.

The main flow: `Slots.hold_slot` → (commit) → `Slots.start`, or `Claims.run_once` → `Callbacks.run` → the callback →
`Answers.answer` → the engine of this process, or `AnswerWriter` → (commit) → `Slots.answers_committed`.
"""
