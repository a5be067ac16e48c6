"""Hostile code of users, at random, beside honest work: `python tests/soak/hostilities.py '{"url": …, "seconds": 10, "seed": 7}'`.

Three instances in one process have hostile workers, subscribers, listeners to the mesh, a sink, a function that connects and a
logging handler. Each honest job shares its data with a hostile activity; meanwhile sessions and statements are cancelled, and
mappings cost more than they may. No instance may end, and every honest job ends in time with exactly its result.

A process of its own, because what is left behind (threads that sleep, tasks that swallow everything) is left to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent

sys.path[:0] = [str(HERE), str(HERE.parent)]

import asyncpg  # noqa: E402 - after the path to what lies beside this
from hostile_acts import HostileHandler, World, in_a_thread, on_the_loop, tenant  # noqa: E402

from harness import init_within, owed  # noqa: E402
from hotmesh import DuplicateJobError, HotMesh, HotMeshError, StreamData, Worker  # noqa: E402
from hotmesh.postgres.connect.failures import DRIVER_ERRORS  # noqa: E402
from hotmesh.runtime.engine.limits import EngineLimits  # noqa: E402
from hotmesh.runtime.limits import MemberLimits  # noqa: E402
from hotmesh.runtime.results.output import JobOutput  # noqa: E402

APP = "soak-hostile"

GRAPHS = f"""
app:
  id: {APP}
  version: '1'
  graphs:
    # The evil activities get the very lines that the honest ones get after them, and may end as they like.
    - subscribes: honest
      publishes: honest.done
      expire: 36000
      activities:
        start: {{type: trigger}}
        evil: {{type: worker, topic: evil, input: {{maps: {{lines: '{{start.output.data.lines}}'}}}}}}
        evil_too: {{type: worker, topic: evil.plain, input: {{maps: {{lines: '{{start.output.data.lines}}'}}}}}}
        first:
          type: worker
          topic: good
          input: {{maps: {{x: '{{start.output.data.x}}', lines: '{{start.output.data.lines}}'}}}}
          job: {{maps: {{first: '{{$self.output.data.y}}', lines: '{{start.output.data.lines}}'}}}}
        second:
          type: worker
          topic: good.plain
          input: {{maps: {{x: '{{first.output.data.y}}', lines: '{{start.output.data.lines}}'}}}}
          job: {{maps: {{second: '{{$self.output.data.y}}', seen: '{{$self.output.data.lines}}'}}}}
        over: {{type: hook}}
        child:
          type: await
          topic: child
          input: {{maps: {{x: '{{start.output.data.x}}', lines: '{{start.output.data.lines}}'}}}}
          job: {{maps: {{child: '{{$self.output.data.y}}'}}}}
      transitions:
        start: [{{to: evil}}, {{to: evil_too}}, {{to: child}}]
        evil: [{{to: first}}]
        first: [{{to: second}}]
        evil_too: [{{to: over}}]

    - subscribes: child
      expire: 36000
      activities:
        begin: {{type: trigger}}
        piece:
          type: worker
          topic: good
          input: {{maps: {{x: '{{begin.output.data.x}}', lines: '{{begin.output.data.lines}}'}}}}
          job: {{maps: {{y: '{{$self.output.data.y}}'}}}}
      transitions:
        begin: [{{to: piece}}]

    - subscribes: costly
      expire: 36000
      activities:
        ask: {{type: trigger}}
        before: {{type: worker, topic: good, input: {{maps: {{x: 1}}}}}}
        match:
          type: hook
          job:
            maps:
              at: {{'@pipe': [['{{ask.output.data.text}}', '{{ask.output.data.pattern}}'], ['{{@string.search}}']]}}
              padded: {{'@pipe': [['{{ask.output.data.text}}', '{{ask.output.data.count}}'], ['{{@string.padStart}}']]}}
              repeated: {{'@pipe': [['{{ask.output.data.text}}', '{{ask.output.data.count}}'], ['{{@string.repeat}}']]}}
      transitions:
        ask: [{{to: before}}]
        before: [{{to: match}}]
"""

BOUND = 30.0
"""Seconds within which an honest job has to end, on a busy machine, with everything else going on."""

LONGEST_BLOCK = 6.0
"""Seconds for which the event loop may stand still: some acts block it, and some steps are cut off, each for less than one."""

LIMITS = MemberLimits(engine=EngineLimits(long_step=0.3, longest_step=0.6, most_cuts=1))


@dataclass
class HostileReport:
    """What came of it. `problems` is empty if every promise was kept."""

    seed: int
    seconds: float = 0.0
    jobs: int = 0
    evil: int = 0
    """Jobs of which nothing is expected but that they end."""
    slowest: float = 0.0
    """Seconds of the honest job that took longest."""
    blocked: float = 0.0
    """Seconds for which nothing else went on in the process, the longest time."""
    did: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line of figures."""
        acts = ", ".join(f"{number} × {what}" for what, number in sorted(self.did.items()))
        verdict = (
            f"{len(self.problems)} PROBLEMS"
            if self.problems
            else "no instance ended, nothing lost, late or changed"
        )
        return (
            f"seed {self.seed}: {self.jobs} honest jobs beside {self.evil} others in {self.seconds:.0f} s, the slowest in "
            f"{self.slowest:.1f} s, once nothing went on for {self.blocked:.1f} s; {acts}: {verdict}"
        )


class Hostilities:
    """One run."""

    def __init__(self, url: str, seconds: float, seed: int, rate: float = 6.0) -> None:
        """`rate`: honest jobs a second."""
        self.report = HostileReport(seed)
        self._url = url
        self._seconds = seconds
        self._rate = rate
        self._random = Random(seed)
        self._world = World(Random(seed + 1), asyncio.get_running_loop())
        self._runs: Counter[tuple[str, str]] = Counter()

    async def run(self) -> HostileReport:
        handler = HostileHandler(self._world)
        logging.getLogger("hotmesh").addHandler(handler)
        began = time.monotonic()
        try:
            await self._play()
        except BaseException as error:
            self._world.complain(f"the play itself has ended: {type(error).__name__}: {error}")
            raise
        finally:
            self.report.seconds = time.monotonic() - began
            self.report.did = self._world.did
            self.report.problems = self._world.problems
            if self.report.problems:
                self.report.problems += handler.last[-30:]
        return self.report

    async def _play(self) -> None:
        async with HotMesh.init(APP, connection=self._url) as first:
            await first.deploy(GRAPHS)
            await first.activate("1")
        meshes = [await self._instance(number) for number in range(3)]
        self._world.meshes = meshes
        ends = [asyncio.ensure_future(self._watch(mesh)) for mesh in meshes]
        for mesh in meshes:
            for listener in (on_the_loop(self._world), in_a_thread(self._world)):
                await mesh.sub("honest.done", listener)
                await mesh.sub_quorum(listener)
        disturbing = asyncio.ensure_future(self._disturb())
        beating = asyncio.ensure_future(self._beat())
        await self._load()
        self._world.quiet = True
        beating.cancel()
        if disturbing.done():
            self._world.complain(f"the disturber has ended: {disturbing.exception()!r}")
        disturbing.cancel()
        await asyncio.wait([disturbing])
        await self._calm()
        await self._settle()
        for mesh, end in zip(meshes, ends, strict=True):
            if end.done():
                self._world.complain(f"{mesh.guid_} ended before it was stopped")
            end.cancel()
        for mesh in meshes:
            stopping = time.monotonic()
            await mesh.stop(grace=1)
            if (took := time.monotonic() - stopping) > BOUND:
                self._world.complain(f"stop took {took:.1f} s")

    async def _instance(self, number: int) -> HotMesh:
        """One has a function that connects, one no engine; all have hostile code wherever it can be."""
        world, retry = self._world, {"maximum_attempts": 2, "initial_interval": 0.1, "backoff_coefficient": 1}
        workers = [
            Worker("evil", on_the_loop(world), timeout=1, retry=retry, max_concurrency=10),
            Worker("evil.plain", in_a_thread(world), timeout=1, retry=retry, max_concurrency=10),
            Worker("good", self._good, max_concurrency=20),
            Worker("good.plain", self._good_plain, max_concurrency=5),
        ]
        return await init_within(
            LIMITS,
            APP,
            connection=self._connects if number == 1 else self._url,
            guid=f"m{number}",
            engine=number != 2,
            workers=workers,
            lease=5,
            events=(on_the_loop, in_a_thread, on_the_loop)[number](world),
            settings={
                "cleaning_up": 0.3,
                "connect_timeout": 60,
                "poison_threshold": 1_000,
                "reconnect_max": 0.5,
            },
        )

    async def _beat(self) -> None:
        """Note for how long the event loop stands still, and where, if that is long."""
        seen, over = time.monotonic(), threading.Event()
        here = threading.get_ident()

        def look() -> None:
            told = 0.0
            while not over.wait(0.2):
                if time.monotonic() - seen > LONGEST_BLOCK and told != seen:
                    told = seen
                    stack = "".join(traceback.format_stack(sys._current_frames()[here])[-12:])
                    self._world.complain(f"the event loop stands still at\n{stack}")

        threading.Thread(target=look, daemon=True).start()
        try:
            while True:
                await asyncio.sleep(0.05)
                now = time.monotonic()
                self.report.blocked = max(self.report.blocked, now - seen - 0.05)
                seen = now
        finally:
            over.set()

    async def _watch(self, mesh: HotMesh) -> None:
        try:
            await mesh.closed()
        except HotMeshError as error:
            self._world.complain(f"an instance failed: {error}")

    async def _connects(self) -> asyncpg.Connection:
        """It works, except for now and then, once all instances have begun."""
        if self._world.meshes and not self._world.quiet and self._world.random.random() < 0.3:
            self._world.count(self._connects)
            raise self._world.error()
        return await asyncpg.connect(self._url, server_settings={"application_name": f"hotmesh {APP}"})

    # -- honest work -------------------------------------------------------------------------------------

    async def _good(self, message: StreamData) -> dict[str, Any]:
        await asyncio.sleep(0.005)
        return self._answer(message)

    def _good_plain(self, message: StreamData) -> dict[str, Any]:
        return self._answer(message)

    def _answer(self, message: StreamData) -> dict[str, Any]:
        """What every honest callback does: note that it ran, and with what."""
        if tenant.get() != "nobody":
            self._world.complain("an honest callback saw what another has set in its context")
        x = message.data["x"]
        self._runs[message.job_id, message.activity_id] += 1
        found = message.data.get("lines")
        if found is not None and found != lines(found[0]["number"]):
            self._world.complain(f"{message.job_id} was changed: {str(message.data)[:200]}")
        return {"y": x + 1, "lines": message.data.get("lines")}

    async def _load(self) -> None:
        until = time.monotonic() + self._seconds
        async with asyncio.TaskGroup() as group:
            number = 0
            while time.monotonic() < until:
                group.create_task(self._honest(number))
                if self._random.random() < 0.15:
                    group.create_task(self._costly(number))
                number += 1
                await asyncio.sleep(1 / self._rate)

    async def _honest(self, number: int) -> None:
        """A job that has to end in time with its result, whatever happens."""
        self.report.jobs += 1
        job_id = f"honest-{number}"
        began = time.monotonic()
        await self._publish("honest", {"x": number, "lines": lines(number)}, job_id)
        output: JobOutput | None = None
        while output is None or output.metadata.js != 0:
            took = time.monotonic() - began
            if took > BOUND:
                status = None if output is None else dict(output.metadata)
                self._world.complain(f"{job_id} has not ended within {BOUND:g} s: {status}")
                return
            await asyncio.sleep(0.05)
            with contextlib.suppress(HotMeshError):
                output = await self._world.mesh().get_state("honest", job_id)
        self.report.slowest = max(self.report.slowest, time.monotonic() - began)
        wanted = {
            "first": number + 1,
            "second": number + 2,
            "child": number + 1,
            "lines": lines(number),
            "seen": lines(number),
        }
        if output.data != wanted:
            self._world.complain(f"{job_id} has {str(output.data)[:300]}, {dict(output.metadata)}")
        for activity in ("first", "second"):
            if not self._runs[job_id, activity]:
                self._world.complain(f"{job_id} never reached the callback of {activity}")

    async def _costly(self, number: int) -> None:
        """A job whose mapping costs more than it may; it has to end somehow."""
        self.report.evil += 1
        pattern, count = self._random.choice(
            (
                ("^(?:.*a){12}b", 10),
                ("^(a+)+b", 10),
                ("(?=(a+)+$)b", 10),
                ("b", 2_000_000_000),
                ("b", 1_000_000),
            )
        )
        await self._publish(
            "costly", {"text": "a" * 3_000, "pattern": pattern, "count": count}, f"costly-{number}"
        )

    async def _publish(self, topic: str, data: dict[str, Any], job_id: str) -> None:
        """Create a job, however often it takes: the answer may get lost with its session."""
        until = time.monotonic() + BOUND
        while True:
            try:
                await self._world.mesh().pub(topic, data, extended={"id": job_id})
                return
            except DuplicateJobError:
                return
            except HotMeshError as error:
                if time.monotonic() > until:
                    self._world.complain(f"{job_id} could not be created: {error}")
                    return
                await asyncio.sleep(0.05)

    # -- what happens meanwhile --------------------------------------------------------------------------

    async def _disturb(self) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0.1, 0.6))
            happening = self._random.choices(
                (self._cancel_statements, self._end_sessions, self._time_out_statements), weights=(5, 2, 1)
            )[0]
            self._world.count(happening)
            try:
                await happening()
            except (OSError, *DRIVER_ERRORS) as error:
                logging.getLogger("disturber").warning("%r", error)

    @asynccontextmanager
    async def _disturber(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to which no limit applies that is set meanwhile."""
        connection = await asyncpg.connect(self._url, server_settings={"statement_timeout": "0"})
        try:
            yield connection
        finally:
            await connection.close()

    async def _sessions(self, connection: asyncpg.Connection, function: str, most: int) -> None:
        rows = await connection.fetch(
            "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        for row in self._random.sample(rows, min(len(rows), self._random.randint(1, most))):
            await connection.execute(f"select {function}($1)", row["pid"])

    async def _cancel_statements(self) -> None:
        async with self._disturber() as connection:
            for _ in range(self._random.randint(1, 40)):
                await self._sessions(connection, "pg_cancel_backend", 5)

    async def _end_sessions(self) -> None:
        async with self._disturber() as connection:
            await self._sessions(connection, "pg_terminate_backend", 4)

    async def _time_out_statements(self) -> None:
        """A limit that no statement keeps under load, for whoever connects meanwhile."""
        milliseconds = self._random.choice((1, 5, 50))
        async with self._disturber() as connection:
            name = await connection.fetchval("select quote_ident(current_database())")
            await connection.execute(f"alter database {name} set statement_timeout = {milliseconds}")
        try:
            async with self._disturber() as connection:
                await self._sessions(connection, "pg_terminate_backend", 3)
            await asyncio.sleep(self._random.uniform(0.1, 0.5))
        finally:
            await self._calm()

    async def _calm(self) -> None:
        """Lift the limit, also for those who have connected under it."""
        async with self._disturber() as connection:
            name = await connection.fetchval("select quote_ident(current_database())")
            await connection.execute(f"alter database {name} reset statement_timeout")
            await self._sessions(connection, "pg_terminate_backend", 100)

    # -- what has to be true -----------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Every job ends, also those of which nothing else is expected."""
        left: dict[str, int] = {}
        until = time.monotonic() + BOUND
        async with self._disturber() as connection:
            while time.monotonic() < until:
                left = await owed(connection, APP)
                if not left:
                    break
                await asyncio.sleep(0.1)
            else:
                self._world.complain(f"still owed: {left}")
            jobs = await connection.fetch(
                "select job_id, status, error from hotmesh.job where topic = 'honest' and (status <> 0 or error is not null)"
            )
            dead = await connection.fetch("select * from hotmesh.dead_letter limit 3")
        for job in jobs:
            self._world.complain(f"{job['job_id']} has status {job['status']}, error {job['error']}")
        if dead:
            self._world.complain(f"dead letters: {[str(dict(letter))[:300] for letter in dead]}")


def lines(number: int) -> list[dict[str, Any]]:
    """What an honest job has among its data."""
    return [{"number": number, "sku": f"A-{number}"}, {"number": number, "parts": [1, [2, {"three": 3}]]}]


def play(url: str, seconds: float, seed: int) -> HostileReport:
    """Run it in a process of its own, which has to end in time, too."""
    order = json.dumps({"url": url, "seconds": seconds, "seed": seed})
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__)), order],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + 6 * BOUND,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        words = (error.stderr or b"").decode("utf-8", "replace") if isinstance(error.stderr, bytes) else ""
        return HostileReport(seed, problems=[f"the process does not end: {_short(words)}"])
    last = done.stdout.strip().splitlines()[-1:] or [""]
    try:
        report = HostileReport(**json.loads(last[0]))
    except (ValueError, TypeError):
        return HostileReport(
            seed, problems=[f"the process ended with {done.returncode}: {_short(done.stderr)}"]
        )
    if done.returncode:
        report.problems.append(f"the process ended with {done.returncode}: {_short(done.stderr)}")
    return report


def _short(words: str) -> str:
    """The end of what a process said; some of what it raised has megabytes."""
    return "\n".join(line[:300] for line in words.splitlines()[-60:])


async def main(order: dict[str, Any]) -> HostileReport:
    return await Hostilities(order["url"], order["seconds"], order["seed"]).run()


if __name__ == "__main__":
    found = asyncio.run(main(json.loads(sys.argv[1])))
    print(json.dumps(asdict(found)), flush=True)
