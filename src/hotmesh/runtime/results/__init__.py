"""What is announced of jobs, and who hears it.

In reading order:

    output        a job, as callers and subscribers get it
    waiting       the callers of this process who wait for a job (`pubsub`)
    subscribers   the callbacks of this process, by topic and pattern (`sub`, `psub`)
    publisher     tells both what has committed here, and sends it to other processes that want it
    receiver      tells both what other processes send

The engine, after a commit: `ResultPublisher.notify` → `Callers.answer` and `Subscribers.publish` here, and an outbox for the
others, which `_send_loop` empties → NOTIFY → `Listener` there → `ResultReceiver.on_message` → the same two. Nothing of this is
durable: a caller whose answer was lost reads the job (`waiting`), a subscriber has missed it.
"""
