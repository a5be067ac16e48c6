"""Runs the code of durable functions, so that it does the same each time: pure but for asyncio.

strand     one execution of a function: its loop, its positions, its history; takes completions, gives commands
ledger     what a strand asked for, and what is recorded of it
tasks      tasks, futures and operations, ordered by when they were made; scopes that keep a cancel off
refusals   what an event loop can do and a strand must not
patches    changes of the code beside strands that began before them
patching   what of asyncio would differ between two replays, or between two Pythons
guard      clock, random numbers, files, sockets and threads: refused while a workflow runs
closing    dropping a coroutine, whatever it does about it
"""

from hotmesh.replay.guard import guard
from hotmesh.replay.patching import patch
from hotmesh.replay.strand import Strand
from hotmesh.replay.tasks import Operation, Task, running_strand, shielded

__all__ = ["Operation", "Strand", "Task", "guard", "patch", "running_strand", "shielded"]
