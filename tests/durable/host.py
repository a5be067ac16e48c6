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
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ledger.append(step=f"{name} cancelled", process=os.getpid())
            raise
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


@workflow.defn(task_queue="crash")
async def careful(before: int, sleep: float) -> list[str]:
    """Steps, a sleep, and as many steps to take them back if it is cancelled."""
    done = []
    for place in range(before):
        await workflow.step(work, f"s{place}", place, name=f"s{place}")
        done.append(f"s{place}")
    try:
        await asyncio.sleep(sleep)
    except asyncio.CancelledError:
        async with workflow.cancellation_scope(shielded=True):
            for name in reversed(done):
                await workflow.step(work, f"undo {name}", 0, name=f"undo {name}")
        return [f"undone {name}" for name in done]
    return done


@workflow.defn(task_queue="crash")
async def receives(count: int) -> list[int]:
    return [await workflow.recv("number") for _ in range(count)]


@workflow.defn(task_queue="crash")
async def conditions(count: int, signal_id: str) -> list[int]:
    return [await workflow.condition(signal_id, "1 hour") for _ in range(count)]


@workflow.defn(task_queue="crash")
class Collects:
    def __init__(self) -> None:
        self.numbers: list[int] = []

    @workflow.run
    async def run(self, count: int) -> list[int]:
        await workflow.wait_condition(lambda: len(self.numbers) >= count)
        return self.numbers

    @workflow.signal
    def number(self, number: int) -> None:
        self.numbers.append(number)


@workflow.defn(task_queue="crash")
async def queued(length: int) -> int:
    number = 0
    for place in range(length):
        number = await workflow.execute_activity(f"a{place}", f"a{place}", number)
    return number


async def main() -> None:
    activities = {f"a{place}": work for place in range(4)}
    async with Worker(
        ORDER["url"],
        task_queue="crash",
        workflows=[chain, fan, careful, receives, conditions, Collects, queued] if ORDER["workflows"] else [],
        activities=activities,
        settings={"lease": ORDER["lease"]},
    ):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
