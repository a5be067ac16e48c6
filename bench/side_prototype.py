"""The bare commit path as a side: the limit of the design, without mapping, routing or leases.

side_prototype.py DSN [--uvloop]

A flow is what its rows are: a versioned job, a record of each activity, a row of work that is there until its answer is
committed. Whatever is ready is written by one statement (`prototype.sql`), while the statement before is on its way the
next gathers, and two are on their way at once, as in the engine. Each callback runs in a task of its own, a caller hears
of its result once that is durable. As many row versions as the engine writes for such a flow; everything else that an engine
does for its users is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

import flows
from protocol import ANSWER, PAYLOAD, Load, Side, Timing, drive_tasks, load_of, run_side, timing_answer

MOST = 100  # steps in a commit
ENOUGH = 25  # steps that are worth a commit beside the one on its way
SECTIONS = ("created", "changed", "records", "work", "answered")
COMMIT = "select prototype.commit($1, $2, $3, $4, $5, $6, $7)"
DIMENSION = "{0,0}"

encode = msgspec.json.Encoder().encode


async def charge(_message: dict[str, Any]) -> dict[str, Any]:
    return dict(ANSWER)


class Flow:
    """One job: what is known of it between its steps."""

    __slots__ = ("activities", "at", "data", "done", "generation", "job_id", "started", "step", "topic")

    def __init__(self, topic: str, activities: list[str], done: asyncio.Future[dict[str, bool]]) -> None:
        self.topic = topic
        self.activities = activities
        self.done = done
        self.generation = _generation()
        self.job_id = "H" + urlsafe_b64encode(os.urandom(17)).decode()[:22]
        self.at = 0  # the activity whose work is there
        self.step: list[tuple[str, tuple[Any, ...]]] = []
        self.data: dict[str, bool] = {}
        self.started = datetime.now(UTC)


class Bare:
    """Starts flows, advances them and commits their steps, in tasks of a group: an error ends them all."""

    def __init__(self, connections: list[asyncpg.Connection], tasks: asyncio.TaskGroup) -> None:
        self._idle = connections
        self._start = tasks.create_task
        self._busy = 0
        self._ready: list[Flow] = []

    async def run(self, topic: str, activities: list[str]) -> dict[str, bool]:
        flow = Flow(topic, activities, asyncio.get_running_loop().create_future())
        job = (
            flow.job_id,
            flow.generation,
            "1",
            topic,
            1,
            1.0,
            encode(PAYLOAD).decode(),
            flow.started,
        )
        flow.step = [("created", job), self._work(flow)]
        self._submit(flow)
        return await flow.done

    def _work(self, flow: Flow) -> tuple[str, tuple[Any, ...]]:
        activity = flow.activities[flow.at]
        data = encode(PAYLOAD).decode()
        return "work", (flow.generation, activity, DIMENSION, flow.job_id, flows.STEP, data)

    def _submit(self, flow: Flow) -> None:
        self._ready.append(flow)
        if len(self._ready) == 1 or self._busy == 1:
            asyncio.get_running_loop().call_soon(self._commit_ready)

    def _commit_ready(self) -> None:
        """Send what is ready, if no commit is on its way, or there is enough for a second one."""
        while self._ready and self._idle and (not self._busy or len(self._ready) >= ENOUGH):
            most = MOST if self._busy or len(self._ready) < 2 * ENOUGH else (len(self._ready) + 1) // 2
            batch, self._ready = self._ready[:most], self._ready[most:]
            self._busy += 1
            self._start(self._commit(self._idle.pop(), batch))

    async def _commit(self, connection: asyncpg.Connection, batch: list[Flow]) -> None:
        sections: dict[str, list[Any]] = {name: [] for name in SECTIONS}
        for flow in batch:
            for section, row in flow.step:
                sections[section].append(row)
        changed = await connection.fetchval(
            COMMIT,
            flows.APP,
            int.from_bytes(os.urandom(8)) >> 2,
            *(encode(rows).decode() if rows else None for rows in sections.values()),
        )
        if changed != len(sections["changed"]):
            raise RuntimeError("a job was not at its version")
        self._idle.append(connection)
        self._busy -= 1
        for flow in batch:
            if flow.at == len(flow.activities):
                flow.done.set_result(flow.data)
            else:
                self._start(self._call(flow))
        self._commit_ready()

    async def _call(self, flow: Flow) -> None:
        """Run the callback; its answer is the next step."""
        activity, begun = flow.activities[flow.at], datetime.now(UTC)
        answer = await charge(PAYLOAD)
        flow.data[activity] = answer["ok"]
        flow.at += 1
        record = (
            flow.generation,
            activity,
            DIMENSION,
            encode(answer).decode(),
            begun,
            datetime.now(UTC),
        )
        last = flow.at == len(flow.activities)
        job = (flow.job_id, flow.generation, flow.at, 0 if last else 1, encode(flow.data).decode())
        flow.step = [
            ("changed", job),
            ("answered", (flow.generation, activity, DIMENSION)),
            ("records", record),
        ]
        if not last:
            flow.step.append(self._work(flow))
        self._submit(flow)


def _generation() -> str:
    """A UUID of version 7, as the engine makes them."""
    moment, chance = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10).hex()
    return f"{moment[:8]}-{moment[8:]}-7{chance[1:4]}-8{chance[5:8]}-{chance[8:20]}"


async def run_load(bare: Bare, load: Load) -> Timing:
    topic, expected = flows.topic(load.flow), flows.result(load.flow)
    activities = list(expected)

    async def run_flow() -> None:
        found = await bare.run(topic, activities)
        if found != expected:
            raise RuntimeError(f"expected {expected}, got {found!r}")

    return await drive_tasks(load, run_flow)


async def serve(dsn: str) -> None:
    side = Side()
    connections = [await asyncpg.connect(dsn) for _ in range(2)]
    async with asyncio.TaskGroup() as tasks:
        bare = Bare(list(connections), tasks)
        side.answer({"ready": True})
        requests = side.requests()
        while request := await asyncio.to_thread(next, requests, None):
            side.answer(timing_answer(await run_load(bare, load_of(request))))
    for connection in connections:
        await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    run_side(serve(options.dsn), uvloop=options.uvloop)


if __name__ == "__main__":
    main()
