"""A process that hosts workflows: `python host.py '<order as JSON>'`. It serves until it is killed.

What its steps do in the world is an appended line each, in a file outside of the database.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from hotmesh.durable import Worker, activity, workflow
from ledger import Ledger

ORDER = json.loads(sys.argv[1]) if __name__ == "__main__" else {}


async def work(name: str, number: int) -> int:
    context = activity.get_context()
    ledger = Ledger(ORDER["ledger"])
    ledger.append(step=name, number=number, key=context.idempotency_key, process=os.getpid())
    if name in ORDER["hang"]:
        await asyncio.sleep(3600)
    if name in ORDER["die"]:
        os.kill(os.getpid(), 9)
    return number + 1


@workflow.defn(task_queue="crash")
async def chain(length: int) -> int:
    number = 0
    for place in range(length):
        number = await workflow.step(work, f"s{place}", number, name=f"s{place}")
    return number


@workflow.defn(task_queue="crash")
async def fan(width: int) -> list[int]:
    return list(
        await asyncio.gather(
            *(workflow.step(work, f"s{place}", place, name=f"s{place}") for place in range(width))
        )
    )


async def main() -> None:
    async with Worker(
        ORDER["url"], task_queue="crash", workflows=[chain, fan], settings={"lease": ORDER["lease"]}
    ):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
