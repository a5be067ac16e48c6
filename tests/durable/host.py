"""A process that hosts workflows: `python host.py '<order as JSON>'`. It serves until it is killed.

What its steps do in the world is an appended line each, in a file outside of the database. With `strikes` it is
one process after the other, each of which starts a workflow and is killed at the n-th commit of it: before it is sent, while
it is executed, or after. The signals that they died of are printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from hotmesh.durable import Client, Worker, activity, workflow
from hotmesh.postgres import commits
from interception import database_of, intercept
from ledger import Ledger

ORDER = json.loads(sys.argv[1]) if __name__ == "__main__" else {}


async def work(name: str, number: int) -> int:
    context = activity.get_context()
    ledger = Ledger(ORDER["ledger"])
    ledger.append(
        step=name,
        number=number,
        key=context.idempotency_key,
        process=os.getpid(),
        workflow=context.workflow_id,
        found=context.last_heartbeat_details,
    )
    if name in ORDER["hang"]:
        context.heartbeat(name, {"number": number})
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ledger.append(step=f"{name} cancelled", process=os.getpid())
            raise
    if name in ORDER.get("gives_up", ()):
        ledger.append(step=f"{name} given up", token=context.task_token)
        activity.raise_complete_async()
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


MIXED = [1, 2, 3, 4]


@workflow.defn(task_queue="crash")
async def mixed() -> list[int]:
    """A step, two at once, a timer, a step."""
    first = await workflow.step(work, "a", 0, name="a")
    both = await asyncio.gather(
        workflow.step(work, "b", first, name="b"), workflow.step(work, "c", 2, name="c")
    )
    await asyncio.sleep(0.02)
    return [first, *both, await workflow.step(work, "d", both[1], name="d")]


def strike(worker: Worker, name: str, number: int, moment: str) -> None:
    """Die at the n-th commit of the workflow that this process starts."""
    left = number

    async def commit(connection: Any, batch: Any, *rest: Any, **options: Any) -> Any:
        nonlocal left
        arguments = connection, batch, *rest
        # Those of the jobs of processes that died before it do not count.
        left -= name in repr(batch.arguments("", "", 0, 0, 0, None))
        if left:
            return await honest(*arguments, **options)
        if moment != "before":
            committing = asyncio.ensure_future(honest(*arguments, **options))
            await (committing if moment == "after" else asyncio.sleep(0))
        os.kill(os.getpid(), 9)
        raise AssertionError("dead")

    honest = intercept(database_of(worker.mesh), commits.commit, commit)


async def main(blow: Any = None) -> None:
    async with Worker(
        ORDER["url"],
        task_queue="crash",
        workflows=[chain, fan, mixed, careful, receives, conditions, Collects, queued]
        if ORDER["workflows"]
        else [],
        activities={f"a{place}": work for place in range(4)},
        settings={"lease": ORDER["lease"]},
    ) as worker:
        if blow is not None:
            strike(worker, *blow)
            client = await Client.connect(ORDER["url"])
            await client.start_workflow(mixed, id=blow[0])
            await asyncio.sleep(20)
            return
        print("ready", flush=True)
        await asyncio.Event().wait()


def die_one_by_one() -> None:
    for blow in ORDER["strikes"]:
        process = os.fork()
        if not process:
            asyncio.run(main(blow))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        print(os.WTERMSIG(status), flush=True)


if __name__ == "__main__":
    if "strikes" in ORDER:
        die_one_by_one()
    else:
        asyncio.run(main())
