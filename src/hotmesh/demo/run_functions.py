"""Runs orders through the durable functions, as many at once as there are callers; in this process, or in ones that are killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from hotmesh.demo.functions import QUEUE, Order, place, reviewed_by
from hotmesh.demo.handlers import PRICES, verdict
from hotmesh.demo.hosts import Hosts
from hotmesh.demo.orders import Order as Line
from hotmesh.demo.orders import expected, outcome
from hotmesh.demo.run import Run
from hotmesh.durable import Client, Worker, errors
from hotmesh.postgres.connect.options import ConnectionLike

PROCESSES: Final = 3
PAUSE: Final = 0.02
"""Seconds that a step takes while processes are killed, so that each of them dies in the middle of something."""
MOST_KILLS: Final = 10
LONGEST: Final = 300.0
"""Seconds after which a caller stops waiting for an order."""


async def run_functions(
    placed: Sequence[Line],
    *,
    connection: str | None,
    namespace: str,
    concurrency: int,
    done: Callable[[], None],
    chaos: bool = False,
) -> tuple[Run, int]:
    """Place every order, `concurrency` at a time; what the callers saw, and how many processes were killed meanwhile."""
    async with AsyncExitStack() as stack:
        hosts: Hosts | None = None
        if chaos:
            hosts = await stack.enter_async_context(Hosts(PROCESSES, namespace, connection, PAUSE))
        else:
            await stack.enter_async_context(_worker(connection, namespace))
        client = await stack.enter_async_context(Client(connection, namespace=namespace))
        run = Run()
        ends = asyncio.Semaphore(0)

        def ended() -> None:
            ends.release()
            done()

        started = time.perf_counter()
        waiting = iter(placed)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(concurrency, len(placed))):
                tasks.create_task(_caller(client, waiting, run, ended))
            if hosts is not None:
                tasks.create_task(_kill(hosts, ends, len(placed)))
        run.seconds = time.perf_counter() - started
        return run, 0 if hosts is None else hosts.killed


@asynccontextmanager
async def _worker(connection: ConnectionLike, namespace: str) -> AsyncIterator[None]:
    async with Worker(connection, namespace=namespace, task_queue=QUEUE, workflows=[place]):
        yield


async def _caller(client: Client, waiting: Iterator[Line], run: Run, done: Callable[[], None]) -> None:
    """Place one order after the other, and wait for the result of each."""
    for line in waiting:
        begun = time.perf_counter()
        try:
            handle = await client.start_workflow(place, Order(**line), id=line["id"], entity=line["run"])
            await _review(client, line)
            found = outcome(await handle.result(timeout=LONGEST))
        except (errors.WorkflowFailedError, TimeoutError) as error:
            found = f"{type(error).__name__}: {error}"
        run.latencies.setdefault(found, []).append(time.perf_counter() - begun)
        done()


async def _review(client: Client, line: Line) -> None:
    """The person who looks at big orders, and answers each with a signal; often before the order waits for it."""
    total = PRICES.get(line["sku"], 0) * line["quantity"]
    if "review" in next(iter(expected([line]))):
        await client.signal(reviewed_by(line["id"]), verdict(total)["approved"])


async def _kill(hosts: Hosts, ends: asyncio.Semaphore, orders: int) -> None:
    """Kill a process whenever a further share of the orders has ended, until the last share."""
    kills = min(MOST_KILLS, max(1, orders // 50))
    for _ in range(kills):
        for _ in range(orders // (kills + 1)):
            await ends.acquire()
        await hosts.kill()
