"""The DBOS side: the same flows as DBOS workflows with steps, in their own process and environment.

    side_dbos.py DSN [threads|threads-call|async|async-call] [POOL]

`threads` starts each workflow with `DBOS.start_workflow` from a caller thread and waits on its handle; `async` does the
same with coroutine workflows and `start_workflow_async`. The `-call` forms call the workflow function directly.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from dbos import DBOS, DBOSConfig

from protocol import ANSWER, PAYLOAD, WIDE, Side, Timing, drive_tasks, drive_threads, load_of, timing_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol import Load


@DBOS.step()
def charge(_payload: dict[str, Any]) -> dict[str, Any]:
    return dict(ANSWER)


@DBOS.workflow()
def one(payload: dict[str, Any]) -> dict[str, Any]:
    return charge(payload)


@DBOS.workflow()
def five(payload: dict[str, Any]) -> dict[str, Any]:
    for _ in range(4):
        charge(payload)
    return charge(payload)


@DBOS.workflow()
def wide(payload: dict[str, Any]) -> dict[str, Any]:
    """Steps of a workflow that is not a coroutine follow each other."""
    for _ in range(WIDE - 1):
        charge(payload)
    return charge(payload)


@DBOS.step()
async def charge_async(_payload: dict[str, Any]) -> dict[str, Any]:
    return dict(ANSWER)


@DBOS.workflow()
async def one_async(payload: dict[str, Any]) -> dict[str, Any]:
    return await charge_async(payload)


@DBOS.workflow()
async def five_async(payload: dict[str, Any]) -> dict[str, Any]:
    for _ in range(4):
        await charge_async(payload)
    return await charge_async(payload)


@DBOS.workflow()
async def wide_async(payload: dict[str, Any]) -> dict[str, Any]:
    found = await asyncio.gather(*(charge_async(payload) for _ in range(WIDE)))
    return found[-1]


FLOWS: dict[str, Callable[..., Any]] = {"one": one, "five": five, "wide": wide}
FLOWS_ASYNC: dict[str, Callable[..., Any]] = {"one": one_async, "five": five_async, "wide": wide_async}


def _check(result: object) -> None:
    if result != ANSWER:
        raise RuntimeError(f"expected {ANSWER}, got {result!r}")


def run_threads(load: Load, *, call: bool) -> Timing:
    flow = FLOWS[load.flow]
    if call:
        return drive_threads(load, lambda: _check(flow(PAYLOAD)))
    return drive_threads(load, lambda: _check(DBOS.start_workflow(flow, PAYLOAD).get_result()))


async def run_tasks(load: Load, *, call: bool) -> Timing:
    flow = FLOWS_ASYNC[load.flow]

    async def run_flow() -> None:
        if call:
            _check(await flow(PAYLOAD))
            return
        handle = await DBOS.start_workflow_async(flow, PAYLOAD)
        _check(await handle.get_result())

    return await drive_tasks(load, run_flow)


def launch(dsn: str, pool_size: int | None) -> None:
    config: DBOSConfig = {"name": "bench", "system_database_url": dsn, "log_level": "WARNING"}
    if pool_size:
        config["sys_db_pool_size"] = pool_size
    DBOS(config=config)
    DBOS.launch()


def serve_threads(side: Side, *, call: bool) -> None:
    for request in side.requests():
        side.answer(timing_answer(run_threads(load_of(request), call=call)))


async def serve_tasks(side: Side, *, call: bool) -> None:
    requests = side.requests()
    while request := await asyncio.to_thread(next, requests, None):
        side.answer(timing_answer(await run_tasks(load_of(request), call=call)))


def main(dsn: str, way: str = "threads", pool: str = "0") -> None:
    side = Side()
    launch(dsn, int(pool))
    side.answer({"ready": True})
    call = way.endswith("-call")
    if way.startswith("async"):
        asyncio.run(serve_tasks(side, call=call))
    else:
        serve_threads(side, call=call)
    DBOS.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
