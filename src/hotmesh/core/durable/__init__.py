"""What durable functions decide, as data and functions, without a clock, chance or a loop.

commands   what a turn asks for, and the completions that answer
retry      when work is tried again
failure    what an exception of users' code becomes when it is stored, and how it comes back
"""
