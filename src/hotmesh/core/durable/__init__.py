"""Durable functions as data, without a clock, chance or a loop: what a strand asks for and is told, and what that means for a job.

commands   what a turn asks for, and the completions that answer
history    what is recorded of a job: its operations, closed and open
record     what events mean for a strand, in which order they count
build      what a turn changes: the step that is committed
metadata   what is told of a job, and of its end
state      what a job's row says beyond its columns: attempts, parking
retry      when work is tried again
failure    what an exception of users' code becomes when it is stored, and how it comes back
"""
