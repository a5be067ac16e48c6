"""A process with one engine whose costs are measured while there is much of something.

scale_side.py DSN [both|first|second] [--settings JSON]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from statistics import median
from typing import Any

import scale_flows as flows
from hotmesh import HotMesh, Worker
from protocol import Side

CALLERS = 200
TIMEOUT = 300
FIRST_PASS = 10  # what later passes are held against


class Passes:
    """Times the passes of a cycle, at the worker that every pass goes through."""

    def __init__(self) -> None:
        self._moments: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        self._holds: dict[int, asyncio.Event] = {}
        self._reached: dict[int, asyncio.Event] = {}

    async def step(self, message: Any) -> dict[str, Any]:
        """The worker: counts, and holds the long job before a pass that is to be timed."""
        number = message.data["n"]
        if "long" in message.data:
            long = bool(message.data["long"])
            if long and number in self._holds:
                self._reached[number].set()
                await self._holds[number].wait()
            self._moments[long].append((time.perf_counter(), time.process_time()))
        return {"n": number + 1}

    async def run(self, mesh: HotMesh, topic: str, marks: list[int], window: int) -> list[dict[str, float]]:
        """Run one long job; before each mark it pauses while a fresh job runs its first passes."""
        self._holds = {mark: asyncio.Event() for mark in marks}
        self._reached = {mark: asyncio.Event() for mark in marks}
        await self._fresh(mesh, topic, window)
        begun = {"limit": max(marks) + window + 1, "long": True}
        self._moments[True].clear()
        job = asyncio.create_task(mesh.pubsub(topic, begun, timeout=TIMEOUT))
        found = []
        for mark in marks:
            await self._reached[mark].wait()
            fresh = await self._fresh(mesh, topic, window)
            place = len(self._moments[True])
            self._holds[mark].set()
            while len(self._moments[True]) < place + window and not job.done():  # noqa: ASYNC110 - the passes are not held up
                await asyncio.sleep(0.01)
            late = _cost(self._moments[True][place : place + window])
            found.append(
                {
                    "pass": mark,
                    "fresh_ms": fresh[0],
                    "fresh_cpu_ms": fresh[1],
                    "ms": late[0],
                    "cpu_ms": late[1],
                }
            )
        await job
        return found

    async def _fresh(self, mesh: HotMesh, topic: str, window: int) -> tuple[float, float]:
        self._moments[False].clear()
        await mesh.pubsub(topic, {"limit": FIRST_PASS + window, "long": False}, timeout=TIMEOUT)
        return _cost(self._moments[False][FIRST_PASS : FIRST_PASS + window])


def _cost(moments: list[tuple[float, float]]) -> tuple[float, float]:
    """Median time from pass to pass, and mean CPU time of this process, in milliseconds."""
    wall = median(after[0] - before[0] for before, after in itertools.pairwise(moments))
    return wall * 1000, (moments[-1][1] - moments[0][1]) / (len(moments) - 1) * 1000


async def many(mesh: HotMesh, topic: str, data: dict[str, Any], count: int) -> None:
    """Start this many jobs and leave them."""
    numbers = itertools.count()

    async def caller() -> None:
        while next(numbers) < count:
            await mesh.pub(topic, data)

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(caller())


async def one(mesh: HotMesh, topic: str, data: dict[str, Any], times: int) -> list[float]:
    """Run a flow some times, one after the other; milliseconds of each."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        await mesh.pubsub(topic, data, timeout=TIMEOUT)
        found.append((time.perf_counter() - begun) * 1000)
    return found


async def _handle(mesh: HotMesh, passes: Passes, request: dict[str, Any]) -> dict[str, Any]:
    match request["do"]:
        case "passes":
            return {"passes": await passes.run(mesh, request["flow"], request["marks"], request["window"])}
        case "one":
            return {"ms": await one(mesh, request["flow"], request["data"], request["times"])}
        case "many":
            await many(mesh, request["flow"], request["data"], request["count"])
            return {"started": request["count"]}
        case other:
            raise ValueError(f"no such request: {other}")


async def serve(dsn: str, role: str, settings: dict[str, Any]) -> None:
    side, passes = Side(), Passes()
    workers = {
        "both": [Worker(flows.STEP, passes.step, max_concurrency=50), Worker(flows.OTHER, _count)],
        "first": [Worker(flows.STEP, passes.step, max_concurrency=50)],
        "second": [Worker(flows.OTHER, _count)],
    }
    async with HotMesh.init(
        app_id=flows.APP, connection=dsn, workers=workers[role], settings=settings
    ) as mesh:
        if role != "second":
            await mesh.deploy(flows.document())
            await mesh.activate("1")
        side.answer({"ready": True})
        requests = side.requests()
        while request := await asyncio.to_thread(next, requests, None):
            side.answer(await _handle(mesh, passes, request))


async def _count(message: Any) -> dict[str, Any]:
    return {"n": message.data["n"] + 1}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("role", nargs="?", default="both", choices=["both", "first", "second"])
    parser.add_argument("--settings", type=json.loads, default={})
    options = parser.parse_args()
    asyncio.run(serve(options.dsn, options.role, options.settings))


if __name__ == "__main__":
    main()
