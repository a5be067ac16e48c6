"""Our side: an engine, a worker, or both in one process.

side_hotmesh.py DSN [both|engine|worker|deploy] [--uvloop]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from dataclasses import replace
from typing import Any

import flows
from hotmesh import HotMesh, Worker
from protocol import ANSWER, PAYLOAD, Load, Side, Timing, drive_tasks, load_of, run_side, timing_answer

CALLERS = 200  # tasks that fill the tables with jobs
TIMEOUT = 30


async def charge(_message: Any) -> dict[str, Any]:
    return dict(ANSWER)


class Signalled:
    """Flows that wait for one signal each."""

    def __init__(self, mesh: HotMesh) -> None:
        self._mesh = mesh
        self._waiting: list[str] = []

    async def run_load(self, load: Load) -> Timing:
        """A load of so many flows, which warms up, starts them and signals a few; one of some seconds signals the rest."""
        if load.flows is not None:
            self._waiting += await fill(self._mesh, load.flow, load.flows)
            load = replace(load, flows=min(load.flows, CALLERS))
        else:
            load = replace(load, flows=len(self._waiting))

        async def signal() -> None:
            await self._mesh.signal(flows.GO, {"id": self._waiting.pop(), **ANSWER}, required=True)

        return await drive_tasks(load, signal)


async def run_load(mesh: HotMesh, load: Load) -> Timing:
    topic, expected = flows.topic(load.flow), flows.result(load.flow)

    async def run_flow() -> None:
        output = await mesh.pubsub(topic, PAYLOAD, timeout=TIMEOUT)
        if output.data != expected:
            raise RuntimeError(f"expected {expected}, got {output.data!r}")

    return await drive_tasks(load, run_flow)


async def fill(mesh: HotMesh, flow: str, jobs: int) -> list[str]:
    """Start this many jobs and leave them; their ids."""
    topic, numbers = flows.topic(flow), itertools.count()
    found: list[str] = []

    async def caller() -> None:
        while next(numbers) < jobs:
            found.append(await mesh.pub(topic, PAYLOAD))

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(caller())
    return found


async def serve(dsn: str, role: str) -> None:
    side = Side()
    workers = [Worker(flows.STEP, charge, max_concurrency=50)] if role in {"both", "worker"} else []
    mesh = await HotMesh.init(app_id=flows.APP, connection=dsn, workers=workers, engine=role != "worker")
    if role == "deploy":
        await mesh.deploy(flows.document())
        await mesh.activate("1")
    side.answer({"ready": True})
    signalled = Signalled(mesh)

    requests = side.requests()
    while request := await asyncio.to_thread(next, requests, None):
        if request["do"] == "fill":
            await fill(mesh, request["flow"], request["jobs"])
            side.answer({"filled": request["jobs"]})
        else:
            load = load_of(request)
            run = signalled.run_load(load) if load.flow == "signalled" else run_load(mesh, load)
            side.answer(timing_answer(await run))
    await mesh.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("role", nargs="?", default="both", choices=["both", "engine", "worker", "deploy"])
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    run_side(serve(options.dsn, options.role), uvloop=options.uvloop)


if __name__ == "__main__":
    main()
