"""What durable functions decide, without a clock, chance or a loop.

`retry` says when work is tried again; `failure` is what an exception of users' code becomes when it is stored, and how
it comes back.
"""
