"""A drill: processes of one mesh under load, killed and started again at random, and the Postgres with them.

Used by the crash test for seconds and by `python -m tests.soak` for minutes. What happened is read from two sources
that know nothing of each other: the database, and the file in which the callbacks left a line each time they ran.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
from member import APP, FLOW, LEASE, RECORDS, TURNS, expected

from hotmesh import HotMesh
from hotmesh.postgres import local
from ledger import entries

OBLIGATIONS = ("worker_stream", "engine_stream", "timer", "wait")


@dataclass(frozen=True)
class Role:
    """What a process of the drill is."""

    name: str
    engine: bool
    worker: bool


ROLES = (
    Role("both-a", engine=True, worker=True),
    Role("both-b", engine=True, worker=True),
    Role("engine", engine=True, worker=False),
    Role("worker", engine=False, worker=True),
)


@dataclass
class Report:
    """What a drill found. `problems` is empty if every promise was kept."""

    seed: int
    seconds: float = 0.0
    jobs: int = 0
    kills: int = 0
    restarts_of_postgres: int = 0
    runs: int = 0
    repeated_runs: int = 0
    slowest_takeover: float = 0.0
    settling: float = 0.0
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line of figures."""
        verdict = f"{len(self.problems)} PROBLEMS" if self.problems else "nothing lost, nothing twice"
        return (
            f"seed {self.seed}: {self.jobs} jobs, {self.runs} callbacks ({self.repeated_runs} repeated), "
            f"{self.kills} kills, {self.restarts_of_postgres} Postgres restarts in {self.seconds:.0f} s; "
            f"slowest takeover {self.slowest_takeover:.2f} s, settled in {self.settling:.1f} s: {verdict}"
        )


class Drill:
    """The processes of one drill and what is known about them."""

    def __init__(
        self,
        directory: Path,
        url: str,
        *,
        jobs: int,
        rate: float,
        seed: int = 0,
        roles: tuple[Role, ...] = ROLES,
    ) -> None:
        self.url = url
        self.roles = roles
        self.ledger = directory / "ledger.jsonl"
        self.jobs = jobs
        self.rate = rate
        self.random = random.Random(seed)
        self.report = Report(seed, jobs=jobs)
        self.killed: dict[str, float] = {}
        self.outages: list[tuple[float, float]] = []
        self._up: dict[str, float] = {}
        self._log = directory / "members.log"
        self._processes: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        self._numbers = Counter[str]()
        self.ledger.touch()

    # -- processes ---------------------------------------------------------------------------------------

    def start(self, role: Role) -> None:
        """Start the process of a role, or its successor. Each engine creates its share of the jobs."""
        self._numbers[role.name] += 1
        member = f"{role.name}-{self._numbers[role.name]}"
        engines = [other.name for other in self.roles if other.engine]
        order = {
            "member": member,
            "url": self.url,
            "ledger": str(self.ledger),
            "engine": role.engine,
            "worker": role.worker,
            "publish": [engines.index(role.name), len(engines), self.jobs, self.rate / len(engines)]
            if role.engine
            else None,
        }
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("member.py")), json.dumps(order)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._processes[role.name] = (member, process)

    def kill(self, role: Role) -> None:
        """`kill -9`."""
        member, process = self._processes.pop(role.name)
        process.send_signal(signal.SIGKILL)
        self.killed[member] = time.time()
        if process.wait() != -signal.SIGKILL:
            self.report.problems.append(
                f"{member} had ended by itself ({process.returncode}): {self._last_words()}"
            )
        self.report.kills += 1

    def end(self) -> None:
        for _, process in self._processes.values():
            process.kill()  # ends one that is stopped, too
            process.wait()
        self._processes.clear()

    def stall(self, role: Role) -> None:
        """Stop a process as a machine that swaps would; others may take over its work from now on."""
        member, process = self._processes[role.name]
        process.send_signal(signal.SIGSTOP)
        self.killed[member] = time.time()

    def member(self, role: Role) -> str:
        """The name of its process, also in Postgres."""
        return self._processes[role.name][0]

    def wake(self, role: Role) -> None:
        """Let a stalled process go on where it was."""
        self._processes[role.name][1].send_signal(signal.SIGCONT)

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-2_000:]

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            for role in self.roles:
                self.start(role)
            yield
        finally:
            self.end()

    # -- the run -----------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        async with HotMesh.init(app_id=APP, connection=self.url) as mesh:
            await mesh.deploy(FLOW)
            await mesh.activate("1")

    async def disturb(self, seconds: float, server: Path | None) -> None:
        """Kill and restart at random moments; halfway, restart Postgres, too, if its data directory is given.

        On a busy machine, where processes take long to start, it goes on until some have been killed.
        """
        began = time.monotonic()
        pending = server
        while (lasted := time.monotonic() - began) < seconds or (
            self.report.kills < ENOUGH and lasted < seconds * 10
        ):
            await asyncio.sleep(self.random.uniform(0.1, 0.8))
            if pending is not None and time.monotonic() - began > seconds / 2:
                await self.restart_postgres(pending)
                pending = None
                continue
            if not (ready := self._ready()):
                continue
            role = self.random.choice(ready)
            self.kill(role)
            if self.random.random() < 0.3:
                await asyncio.sleep(self.random.uniform(0.0, 1.0))
            self.start(role)

    def _ready(self) -> list[Role]:
        """The roles whose process serves: to kill one that is still importing would show little."""
        up = {entry["member"] for entry in entries(self.ledger) if entry["what"] == "up"}
        return [role for role in self.roles if self._processes[role.name][0] in up]

    async def restart_postgres(self, server: Path) -> None:
        began = time.time()
        await asyncio.to_thread(local.stop, server, "immediate")
        await asyncio.sleep(self.random.uniform(0.0, 0.5))
        await asyncio.to_thread(local.ensure_running, server)
        self.outages.append((began, time.time()))
        self.report.restarts_of_postgres += 1

    async def settle(self, within: float) -> None:
        """Wait until every job has been created and has ended, and nothing is owed any more."""
        began = time.monotonic()
        deadline = began + within
        owed: dict[str, int] = {}
        connection = await asyncpg.connect(self.url)
        try:
            while time.monotonic() < deadline:
                owed = await self.owed(connection)
                if not owed:
                    break
                await asyncio.sleep(0.05)
            else:
                self.report.problems.append(
                    f"after {within:g} s the mesh still owes {owed}: {self._last_words()}"
                )
        finally:
            await connection.close()
        self.report.settling = time.monotonic() - began

    async def owed(self, connection: asyncpg.Connection) -> dict[str, int]:
        counts = {
            table: await connection.fetchval(f"select count(*) from hotmesh.{table} where app_id = $1", APP)
            for table in OBLIGATIONS
        }
        counts["live jobs"] = await connection.fetchval(
            "select count(*) from hotmesh.job where app_id = $1 and status > 0", APP
        )
        created = await connection.fetchval(
            "select count(*) from hotmesh.job where app_id = $1 and topic = 'order'", APP
        )
        counts["jobs to create"] = self.jobs - created
        return {name: count for name, count in counts.items() if count}

    # -- what has to be true -----------------------------------------------------------------------------

    async def judge(self) -> None:
        """Compare what the database holds, and what the callbacks have seen, with what was promised."""
        connection = await asyncpg.connect(self.url)
        try:
            await self._judge_jobs(connection)
            await self._judge_records(connection)
            jobs = await connection.fetch(
                "select generation, job_id, topic from hotmesh.job where app_id = $1", APP
            )
        finally:
            await connection.close()
        self._judge_runs({str(row["generation"]): f"{row['topic']} {row['job_id']}" for row in jobs})

    def _complain(self, text: str) -> None:
        if len(self.report.problems) < 20:
            self.report.problems.append(text)

    async def _judge_jobs(self, connection: asyncpg.Connection) -> None:
        rows = await connection.fetch(
            "select job_id, status, data, error, topic from hotmesh.job where app_id = $1", APP
        )
        orders = {row["job_id"]: row for row in rows if row["topic"] == "order"}
        if missing := {f"order-{n}" for n in range(self.jobs)} - orders.keys():
            self._complain(f"never created: {sorted(missing)[:5]}")
        if len(rows) != 2 * len(orders):
            self._complain(f"{len(rows) - len(orders)} children of {len(orders)} jobs")
        for job_id, row in orders.items():
            data = json.loads(row["data"] or "{}")
            wanted = expected(int(job_id.removeprefix("order-")))
            if row["status"] != 0 or row["error"] is not None or data != wanted:
                self._complain(
                    f"{job_id} has status {row['status']}, error {row['error']}, {data}; wanted {wanted}"
                )
        if dead := await connection.fetchval(
            "select count(*) from hotmesh.dead_letter where app_id = $1", APP
        ):
            self._complain(f"{dead} dead letters")

    async def _judge_records(self, connection: asyncpg.Connection) -> None:
        """Each pass of each activity has one closed record (that is the primary key), and there are as many as passes."""
        rows = await connection.fetch(
            "select j.job_id, a.activity_id, count(*) as passes, bool_and(a.state = 'closed') as closed "
            "from hotmesh.job as j join hotmesh.activity as a on a.generation = j.generation "
            "where j.app_id = $1 and j.topic = 'order' group by 1, 2",
            APP,
        )
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for row in rows:
            found[row["job_id"]][row["activity_id"]] = row["passes"]
            if not row["closed"]:
                self._complain(f"{row['job_id']} has an open record of {row['activity_id']}")
        for job_id, passes in found.items():
            if passes != RECORDS:
                self._complain(f"{job_id} has the records {passes}")

    def _judge_runs(self, jobs: Mapping[str, str]) -> None:
        """A callback runs again only when its message was taken from a process that died, or lost its Postgres."""
        runs: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
        for entry in entries(self.ledger):
            if entry["what"] == "run":
                runs[entry["gid"], entry["activity"], entry["address"]].append(entry)
        self.report.runs = sum(map(len, runs.values()))
        self._up = {entry["member"]: entry["at"] for entry in entries(self.ledger) if entry["what"] == "up"}
        if len(runs) != (wanted := self.jobs * 8):
            self._complain(f"{len(runs)} different messages reached callbacks, not {wanted}")
            seen = Counter((jobs.get(gid, f"no job {gid}"), activity) for gid, activity, _ in runs)
            odd = {
                key: number for key, number in seen.items() if number != (TURNS if key[1] == "turn" else 1)
            } | {key: number for key, number in seen.items() if key[0].startswith("no job")}
            self._complain(f"more or fewer than expected: {odd}")
        for key, times in runs.items():
            times.sort(key=lambda entry: entry["at"])
            for before, after in pairwise(times):
                self.report.repeated_runs += 1
                self._judge_repetition(key, before, after)

    def _judge_repetition(
        self, key: tuple[str, str, str], before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        died = self.killed.get(before["member"])
        outage = any(began - LEASE <= after["at"] and before["at"] <= ended for began, ended in self.outages)
        woke_up = (
            self.killed.get(after["member"], float("inf")) < after["at"]
        )  # stalled, and about to call back then
        if outage or woke_up:
            return
        if died is None or died > after["at"]:
            self._complain(
                f"{key} ran in {before['member']}, which lived, and {after['at'] - before['at']:.2f} s later again"
            )
            return
        lapsed = max(died, before["at"]) + LEASE
        waited = after["at"] - self._next_worker(lapsed)
        self.report.slowest_takeover = max(self.report.slowest_takeover, waited)
        if waited > SLACK:
            self._complain(
                f"{key} was taken over {waited:.2f} s after the lease of {before['member']} had lapsed"
            )

    def _next_worker(self, moment: float) -> float:
        """The first time from `moment` on at which a process with workers served."""
        serving = [
            (up, self.killed.get(member, float("inf")))
            for member, up in self._up.items()
            if not member.startswith("engine")
        ]
        return min(max(moment, up) for up, died in serving if died > moment)


ENOUGH = 6
"""Kills without which a drill shows little."""

SLACK = 3.0
"""Seconds from the end of a lease to the next run that a busy machine may need."""


async def run(
    directory: Path,
    *,
    jobs: int,
    rate: float,
    disturbance: float,
    seed: int,
    settle_within: float = 30.0,
) -> Report:
    """A whole drill on a Postgres of its own in `directory`."""
    began = time.monotonic()
    data = directory / "postgres"
    # With full durability: a commit that was answered must outlast `-m immediate`, and everything is judged by that.
    server = await asyncio.to_thread(local.ensure_running, data)
    try:
        drill = Drill(directory, server.dsn, jobs=jobs, rate=rate, seed=seed)
        await drill.prepare()
        with drill.running():
            await drill.disturb(disturbance, data)
            await drill.settle(settle_within)
        await drill.judge()
    finally:
        await asyncio.to_thread(local.stop, data, "immediate")
    drill.report.seconds = time.monotonic() - began
    return drill.report
