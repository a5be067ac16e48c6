"""What the harness and a side say to each other, and how both sides drive and time their flows.

A side is a process that holds one engine under test. It reads one JSON request per line from standard input and
answers each with one JSON line. This module imports the standard library only, because every side runs it
inside its own environment.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

PAYLOAD = {"n": 1}
ANSWER = {"ok": True}
WIDE = 20  # steps that the flow `wide` starts together


@dataclass(frozen=True, slots=True)
class Load:
    """Callers that each start a flow, wait for its result and start the next, until a count or a time is reached."""

    flow: str
    concurrency: int
    flows: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """What a load came to; latencies run from the call that starts a flow to its result."""

    flows: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float


def run_side(serve: Coroutine[Any, Any, None], *, uvloop: bool) -> None:
    """Run a side, on asyncio's own event loop or on uvloop, which its environment then has."""
    loop_factory = None
    if uvloop:
        from uvloop import new_event_loop as loop_factory
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve)


class Side:
    """One side's half of the conversation."""

    def __init__(self) -> None:
        # Libraries may print; only answers may reach the harness.
        self._answers: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Every request until the harness says stop or goes away."""
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "stop":
                return
            yield request

    def answer(self, body: dict[str, Any]) -> None:
        self._answers.write(json.dumps(body) + "\n")
        self._answers.flush()


def load_of(request: dict[str, Any]) -> Load:
    return Load(request["flow"], request["concurrency"], request.get("flows"), request.get("seconds"))


def timing_answer(timing: Timing) -> dict[str, Any]:
    return asdict(timing)


class _Turns:
    """Says to each caller whether to start another flow."""

    def __init__(self, load: Load) -> None:
        self.started = time.perf_counter()
        self._deadline = self.started + load.seconds if load.seconds else float("inf")
        self._numbers = itertools.count()
        self._flows = load.flows if load.flows is not None else sys.maxsize

    def another(self) -> bool:
        return time.perf_counter() < self._deadline and next(self._numbers) < self._flows


async def drive_tasks(load: Load, run_flow: Callable[[], Awaitable[object]]) -> Timing:
    """Run the load with one asyncio task for each caller."""
    turns = _Turns(load)
    latencies: list[float] = []

    async def caller() -> None:
        while turns.another():
            begun = time.perf_counter()
            await run_flow()
            latencies.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as callers:
        for _ in range(load.concurrency):
            callers.create_task(caller())
    return _timing(latencies, time.perf_counter() - turns.started)


def drive_threads(load: Load, run_flow: Callable[[], object]) -> Timing:
    """Run the load with one thread for each caller."""
    turns = _Turns(load)
    latencies: list[float] = []
    failures: list[BaseException] = []

    def caller() -> None:
        try:
            while not failures and turns.another():
                begun = time.perf_counter()
                run_flow()
                latencies.append(time.perf_counter() - begun)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            failures.append(error)

    callers = [threading.Thread(target=caller) for _ in range(load.concurrency)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    if failures:
        raise failures[0]
    return _timing(latencies, time.perf_counter() - turns.started)


def _timing(latencies: list[float], seconds: float) -> Timing:
    latencies.sort()
    return Timing(
        flows=len(latencies),
        seconds=seconds,
        p50_ms=_percentile(latencies, 0.50),
        p99_ms=_percentile(latencies, 0.99),
        max_ms=_percentile(latencies, 1.0),
    )


def _percentile(ordered: list[float], share: float) -> float:
    """The value in milliseconds below which this share of the ordered seconds lies."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000
