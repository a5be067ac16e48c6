"""The processes of a mesh among each other: who is there, at which rate, on which version.

In reading order:

    messages     what members tell each other, as it is on the wire
    listener     the connection that hears hints, results and messages, and that makes a process a member
    bus          sends messages, hears those of others, and calls users who subscribe
    ballot       a question to all, and when it has been answered
    profile      what a member says about itself
    roll_call    who is there, once or again and again
    rates        how fast consumers may start messages
    activation   every engine agrees on a version, then all switch
    quorum       one member: puts these together, and says which of them a message is for
    outposts     members that serve the workers with a connection of their own

A message: `Listener._receive` → `Quorum.on_message` → `Bus.on_message`, which shows it to subscribers and decodes it →
`Quorum._handle` → ballot, rates, roll call or the engine's duress; what takes longer runs in a task of its own.
"""
