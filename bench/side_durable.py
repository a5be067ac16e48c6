"""Our durable functions: a client, a host, or both in one process.

side_durable.py DSN [both|client|host] [--uvloop]
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from typing import Any

from hotmesh.durable import Client, Worker, activity, workflow
from protocol import ANSWER, PAYLOAD, WIDE, Load, Side, Timing, drive_tasks, load_of, run_side, timing_answer

QUEUE = "bench"
TIMEOUT = 30


@activity.step
async def charge(_payload: dict[str, Any]) -> dict[str, Any]:
    return dict(ANSWER)


@workflow.defn(task_queue=QUEUE)
async def one(payload: dict[str, Any]) -> dict[str, Any]:
    return await charge(payload)


@workflow.defn(task_queue=QUEUE)
async def five(payload: dict[str, Any]) -> dict[str, Any]:
    for _ in range(4):
        await charge(payload)
    return await charge(payload)


@workflow.defn(task_queue=QUEUE)
async def wide(payload: dict[str, Any]) -> dict[str, Any]:
    found = await asyncio.gather(*(charge(payload) for _ in range(WIDE)))
    return found[-1]


WORKFLOWS = {"one": one, "five": five, "wide": wide}


async def run_load(client: Client, load: Load) -> Timing:
    flow = WORKFLOWS[load.flow]

    async def run_flow() -> None:
        handle = await client.start_workflow(flow, PAYLOAD)
        result = await handle.result()
        if result != ANSWER:
            raise RuntimeError(f"expected {ANSWER}, got {result!r}")

    async with asyncio.timeout(TIMEOUT + (load.seconds or TIMEOUT)):
        return await drive_tasks(load, run_flow)


async def serve(dsn: str, role: str) -> None:
    side = Side()
    async with AsyncExitStack() as stack:
        if role in {"both", "host"}:
            await stack.enter_async_context(Worker(dsn, task_queue=QUEUE, workflows=list(WORKFLOWS.values())))
        client = await stack.enter_async_context(Client(dsn)) if role != "host" else None
        side.answer({"ready": True})
        requests = side.requests()
        while request := await asyncio.to_thread(next, requests, None):
            if client is not None:
                side.answer(timing_answer(await run_load(client, load_of(request))))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("role", nargs="?", default="both", choices=["both", "client", "host"])
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    run_side(serve(options.dsn, options.role), uvloop=options.uvloop)


if __name__ == "__main__":
    main()
