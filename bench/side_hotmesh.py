"""Our side: an engine, a worker, or both in one process.

side_hotmesh.py DSN [both|engine|worker|deploy] [--uvloop]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
from typing import Any

import flows
from hotmesh import HotMesh, Worker
from protocol import ANSWER, PAYLOAD, Load, Side, Timing, drive_tasks, load_of, timing_answer

CALLERS = 200  # tasks that fill the tables with jobs
TIMEOUT = 30


async def charge(_message: Any) -> dict[str, Any]:
    return dict(ANSWER)


async def run_load(mesh: HotMesh, load: Load) -> Timing:
    topic, expected = flows.topic(load.flow), flows.result(load.flow)

    async def run_flow() -> None:
        output = await mesh.pubsub(topic, PAYLOAD, timeout=TIMEOUT)
        if output.data != expected:
            raise RuntimeError(f"expected {expected}, got {output.data!r}")

    return await drive_tasks(load, run_flow)


async def fill(mesh: HotMesh, flow: str, jobs: int) -> None:
    """Start this many jobs and leave them."""
    topic, numbers = flows.topic(flow), itertools.count()

    async def caller() -> None:
        while next(numbers) < jobs:
            await mesh.pub(topic, PAYLOAD)

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(caller())


async def serve(dsn: str, role: str) -> None:
    side = Side()
    workers = [Worker(flows.STEP, charge, max_concurrency=50)] if role in {"both", "worker"} else []
    mesh = await HotMesh.init(app_id=flows.APP, connection=dsn, workers=workers, engine=role != "worker")
    if role == "deploy":
        await mesh.deploy(flows.document())
        await mesh.activate("1")
    side.answer({"ready": True})

    requests = side.requests()
    while request := await asyncio.to_thread(next, requests, None):
        if request["do"] == "fill":
            await fill(mesh, request["flow"], request["jobs"])
            side.answer({"filled": request["jobs"]})
        else:
            side.answer(timing_answer(await run_load(mesh, load_of(request))))
    await mesh.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("role", nargs="?", default="both", choices=["both", "engine", "worker", "deploy"])
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    loop_factory = None
    if options.uvloop:
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(options.dsn, options.role))


if __name__ == "__main__":
    main()
