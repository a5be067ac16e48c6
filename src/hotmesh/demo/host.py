"""A process that hosts the durable functions of the demo: `python -m hotmesh.demo.host NAMESPACE PAUSE`.

It says `ready`, and serves until its input ends, which is when the process that started it is gone; or until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from hotmesh.demo.functions import QUEUE, place, world
from hotmesh.durable import Worker


async def main(namespace: str, pause: str) -> None:
    """Host them. The database is that of the environment."""
    world.pause = float(pause)
    async with Worker(namespace=namespace, task_queue=QUEUE, workflows=[place]):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
