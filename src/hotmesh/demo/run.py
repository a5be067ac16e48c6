"""Runs orders through the flow, as many at once as there are callers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import anyio
from anyio.abc import ObjectReceiveStream

from hotmesh import HotMesh, JobError, StreamData
from hotmesh.demo.handlers import verdict, workers
from hotmesh.demo.orders import APP_ID, Order, flow, outcome
from hotmesh.postgres.connect.options import ConnectionLike

LONGEST = 60.0
"""Seconds after which a caller stops waiting for an order."""


@dataclass(slots=True)
class Run:
    """What the callers saw."""

    seconds: float = 0.0
    latencies: dict[str, list[float]] = field(default_factory=dict)
    """Outcome → seconds from placing an order to its result, one for each order."""

    @property
    def outcomes(self) -> Counter[str]:
        return Counter({name: len(found) for name, found in self.latencies.items()})


async def run_orders(
    placed: Sequence[Order],
    *,
    connection: ConnectionLike,
    namespace: str,
    concurrency: int,
    done: Callable[[], None],
) -> Run:
    """Deploy the flow and place every order, `concurrency` at a time; `done` is called for each result."""
    send, requests = anyio.create_memory_object_stream[tuple[str, float]](len(placed))

    async def review(message: StreamData) -> None:
        await send.send((message.data["id"], message.data["total"]))

    run = Run()
    async with (
        HotMesh.init(
            APP_ID,
            connection=connection,
            namespace=namespace,
            workers=workers(review),
            max_concurrency=concurrency,
        ) as mesh,
        anyio.create_task_group() as tasks,
        send,
    ):
        manifest = await mesh.deploy(flow())
        await mesh.activate(manifest["app"]["version"])
        tasks.start_soon(_review_desk, mesh, requests)
        started = time.perf_counter()
        async with anyio.create_task_group() as callers:
            waiting = iter(placed)
            for _ in range(min(concurrency, len(placed))):
                callers.start_soon(_caller, mesh, waiting, run, done)
        run.seconds = time.perf_counter() - started
    return run


async def _caller(mesh: HotMesh, waiting: Iterator[Order], run: Run, done: Callable[[], None]) -> None:
    """Place one order after the other, and wait for the result of each."""
    for order in waiting:
        begun = time.perf_counter()
        try:
            found = outcome((await mesh.pubsub("order.placed", order, timeout=LONGEST)).data)
        except JobError as error:
            found = f"error {error.code}: {error.message}"
        run.latencies.setdefault(found, []).append(time.perf_counter() - begun)
        done()


async def _review_desk(mesh: HotMesh, requests: ObjectReceiveStream[tuple[str, float]]) -> None:
    """The person who looks at big orders, and answers each with a signal."""
    async with requests:
        async for order_id, total in requests:
            await mesh.signal("order.reviewed", {"id": order_id, **verdict(total)})
