"""Waits. The long-lived services of one process: engine, workers, listener, upkeep.

From options to a member that runs, in the order in which one reads it:

    options      what an instance is to be; every option of `HotMesh.init`, and what is refused
    settings     how long, how many, how large; arguments and environment variables
    limits       bounds of its parts, which nobody has to set
    startup      where the options lead, and which workers are served by outposts: makes members
    member       the parts of one member, and the order in which they begin, drain and end
    face         what the user holds: calls come from the loop of the member, or are refused
    lifetime     the task in which they run, from start to stop
    dispatcher   what is done with what the listener hears
    registry     what this process has: live members, guids in use, the codec for all
    disconnect   the end of all of it

Rooms, the upper ones use the lower:

    calls        what callers ask: deploying, starting jobs, messages for them, statistics
    results      who waits for jobs, and who listens to topics
    members      the processes of a mesh among each other; outposts
    engine       advances jobs
    work         runs callbacks
    definitions  deployed versions as compiled plans
    upkeep       what has to be done now and then
    telemetry    metrics, spans, events, log records

What they share: `surroundings` (what all services of a member have in common), `service` (a flag, and the loop that outlives lost
connections), `wake` (hints), `messages` (what a callback gets and returns), `pace` (the least time between two starts),
`frontier` (up to where a queue has been looked at), `ids`.
Apart from these: `metrics_snapshot` (the figures of a member), `aes` (a codec).
"""
