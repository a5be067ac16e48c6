"""Processes that one piece of work kills, again and again, with other work beside it; for tests of all who take work."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from harness import eventually, one_worker
from hotmesh import HotMesh
from hotmesh.errors import JobNotFoundError
from ledger import entries

APP = "poison"

PROGRAM = """
import asyncio, contextlib, json, os, sys, time
from hotmesh import HotMesh, Worker
from ledger import Ledger

order = json.loads(sys.argv[1])
kind, url = order["kind"], order["url"]
ledger = Ledger(order["ledger"])
begun = set()

def begin(x):
    ledger.append(what="begin", x=x, pid=os.getpid())
    begun.add(x)

def end(x):
    begun.discard(x)
    ledger.append(what="end", x=x, pid=os.getpid())
    return {"y": x}

def may_kill():
    # Once everything else is in the middle of it, or nothing is.
    return len(begun) in (1, order["together"])

async def work(message):
    x = message.data["x"]
    begin(x)
    if x == 0:
        while not may_kill():
            await asyncio.sleep(0.01)
        os._exit(9)
    await asyncio.sleep(order["takes"])
    return end(x)

def plain(message):
    x = message.data["x"]
    begin(x)
    if x == 0:
        while not may_kill():
            time.sleep(0.01)
        os._exit(9)
    time.sleep(order["takes"])
    return end(x)

async def main():
    options = {"connection": url, "lease": 1.5, "settings": {"poison_threshold": order["threshold"]}}
    function = plain if kind == "threads" else work
    served = [[Worker(topic, function) for topic in order["topics"]]]
    if kind == "two instances":
        served = [[Worker(topic, function)] for topic in order["topics"]]
    if kind == "logins":
        options["secured"] = True
    async with contextlib.AsyncExitStack() as stack:
        for workers in served:
            mesh = await stack.enter_async_context(
                HotMesh.init("poison", workers=workers, engine=kind == "own engine", **options)
            )
        for number in reversed(range(order["publish"])):
            await mesh.pub("one", {"x": number}, extended={"id": f"job-{number}"})
        await mesh.closed()

asyncio.run(main())
"""

OTHER = """
    - subscribes: other
      expire: 3600
      activities:
        begin: {type: trigger}
        other_call: {type: worker, topic: v, input: {maps: {x: '{begin.output.data.x}'}}}
      transitions:
        begin: [{to: other_call}]
"""


@asynccontextmanager
async def program(path: Path, **order: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    with (path / "stderr").open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            json.dumps(order),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=stderr,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def play(
    url: str, path: Path, kind: str, *, threshold: int, good: int = 4, takes: float = 0.2, app_url: str = ""
) -> list[int]:
    """Run processes until all jobs have ended; which of the jobs were given up. Job 0 kills its process."""
    ledger = path / "ledger"
    ledger.touch()
    topics = ["w", "v"] if kind in ("topics", "two instances") else ["w"]
    order: dict[str, Any] = {
        "kind": kind,
        "url": url,
        "ledger": str(ledger),
        "threshold": threshold,
        "takes": takes,
        "topics": topics,
        "together": good + 1,
        "publish": 0,
    }
    async with HotMesh.init(APP, connection=app_url or url, lease=1.5) as mesh:
        await mesh.deploy(one_worker(APP, more=OTHER))
        await mesh.activate("1")
        numbers = range(good + 1)
        if kind == "own engine":
            order["publish"] = good + 1
        else:
            for number in reversed(numbers):
                graph = "other" if len(topics) > 1 and number % 2 == 0 else "one"
                await mesh.pub(graph, {"x": number}, extended={"id": f"job-{number}"})

        async def ended() -> bool:
            try:
                return not any([await mesh.get_status(f"job-{number}") > 0 for number in numbers])
            except JobNotFoundError:  # not there yet
                return False

        deaths = 0
        while not await ended():
            async with program(path, **order) as process:
                await eventually(partial(_over, process, ended), within=40, what="an end")
                deaths += process.returncode is not None
            order["publish"] = 0
        errors = {
            number: (await mesh.get_state("", f"job-{number}")).metadata.get("err") for number in numbers
        }
        lost = [number for number, error in errors.items() if error]
        letters = await mesh.list_dead_letters()
        assert [letter.job_id for letter in letters] == [f"job-{number}" for number in lost]
        assert all(f"(dead letter {letter.id})" in json.dumps(errors[0]) for letter in letters)
    assert deaths == max(threshold, 2)
    _were_alone(list(entries(ledger)))
    return lost


async def _over(process: asyncio.subprocess.Process, ended: Callable[[], Awaitable[bool]]) -> bool:
    return process.returncode is not None or await ended()


def _were_alone(found: list[dict[str, Any]]) -> None:
    """In the last process that died, only the one that killed it ran."""
    last = [one["pid"] for one in found if one["x"] == 0][-1]
    running: set[int] = set()
    for one in found:
        if one["pid"] == last:
            running ^= {one["x"]}
    assert running == {0}
