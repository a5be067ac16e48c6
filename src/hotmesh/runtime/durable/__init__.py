"""Runs durable functions: their turns, their steps in this process, and the right to both.

hosted       what of users' functions is needed here
turns        decides the steps of their jobs: what happened, what the code makes of it, what is committed
activities   attempts of activities of queues that run in this process, and what becomes of them
unknown      activities that no worker has: said, and failed in the end
tokens       by which an activity is ended from elsewhere, after its function has given up its result
local_steps  steps that run in this process, after the commit of the turn that asked for them
tenure       the right of this process on the jobs of these steps, and what is done about processes that have died
"""
