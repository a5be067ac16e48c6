"""Chaos: eight processes of two apps under load, and everything that can happen to them at random.

`kill -9`, SIGSTOP for longer than a lease, sessions ended by the server, a Postgres that is restarted, versions that are
activated and consumers that are throttled all the while. In the end nothing may be lost, or have counted twice.
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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from chaos_member import APPS, CALLBACKS, RECORDS, TOPICS, expected, graphs
from drill import OBLIGATIONS
from member import LEASE

from hotmesh import HotMesh, HotMeshError
from hotmesh.postgres import local
from ledger import entries

ROLES = {
    "both-a": (True, True), "both-b": (True, True), "both-c": (True, True), "both-d": (True, True),
    "engine-a": (True, False), "engine-b": (True, False), "worker-a": (False, True), "worker-b": (False, True),
}  # fmt: skip
"""Name → whether it has engines and workers."""


@dataclass
class ChaosReport:
    """What came of it. `problems` is empty if every promise was kept."""

    seed: int
    seconds: float = 0.0
    jobs: int = 0
    callbacks: int = 0
    repeated_callbacks: int = 0
    refused_zombies: int = 0
    did: dict[str, int] = field(default_factory=Counter)
    settling: float = 0.0
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line of figures."""
        verdict = f"{len(self.problems)} PROBLEMS" if self.problems else "nothing lost, nothing twice"
        events = ", ".join(f"{number} × {what}" for what, number in sorted(self.did.items()))
        return (
            f"seed {self.seed}: {self.jobs} jobs in {len(APPS)} apps, {self.callbacks} callbacks "
            f"({self.repeated_callbacks} repeated) in {self.seconds:.0f} s; {events}; {self.refused_zombies} late answers "
            f"refused; settled in {self.settling:.1f} s: {verdict}"
        )


class Chaos:
    """The processes, what happens to them, and what is known about it."""

    def __init__(self, directory: Path, url: str, data: Path, *, jobs: int, rate: float, seed: int) -> None:
        self.url = url
        self.data = data
        self.jobs = jobs
        self.rate = rate
        self.random = random.Random(seed)
        self.report = ChaosReport(seed, jobs=jobs * len(APPS))
        self.ledger = directory / "ledger.jsonl"
        self.ledger.touch()
        self._log = directory / "members.log"
        self._processes: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        self._asleep: dict[str, float] = {}
        self._numbers = Counter[str]()

    # -- processes ---------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        engine, worker = ROLES[name]
        self._numbers[name] += 1
        member = f"{name}-{self._numbers[name]}"
        engines = [other for other, (is_engine, _) in ROLES.items() if is_engine]
        order = {
            "member": member,
            "url": self.url,
            "ledger": str(self.ledger),
            "engine": engine,
            "worker": worker,
            "publish": [engines.index(name), len(engines), self.jobs, self.rate / len(engines)]
            if engine
            else None,
        }
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("chaos_member.py")), json.dumps(order)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._processes[name] = (member, process)

    def _kill(self, name: str) -> None:
        member, process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            self.complain(f"{member} had ended by itself ({process.returncode}): {self._last_words()}")

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-2_000:]

    def _awake(self) -> list[str]:
        """Those that serve: to kill one that is still importing would show little."""
        up = {entry["member"] for entry in entries(self.ledger) if entry["what"] == "up"}
        return [
            name for name, (member, _) in self._processes.items() if member in up and name not in self._asleep
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            for name in ROLES:
                self.start(name)
            yield
        finally:
            for _, process in self._processes.values():
                process.kill()  # ends one that is stopped, too
                process.wait()

    async def leave(self) -> None:
        """End all processes politely; they must drain, and leave nothing."""
        for _, process in self._processes.values():
            process.terminate()
        for member, process in self._processes.values():
            try:
                code = await asyncio.to_thread(process.wait, 20)
            except subprocess.TimeoutExpired:
                self.complain(f"{member} did not stop within 20 s")
                continue
            if code != 0:
                self.complain(f"{member} ended with {code}: {self._last_words()}")
        self._processes.clear()

    # -- what happens ------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        for app in APPS:
            async with HotMesh.init(app, connection=self.url) as mesh:
                for version in ("1", "2"):
                    await mesh.deploy(graphs(app, version))
                await mesh.activate("1")

    async def disturb(self, seconds: float) -> None:
        began = time.monotonic()
        restarts = [seconds / 3, seconds * 2 / 3]
        while (lasted := time.monotonic() - began) < seconds:
            await asyncio.sleep(self.random.uniform(0.1, 1.0))
            self._wake_sleepers()
            if restarts and lasted > restarts[0]:
                restarts.pop(0)
                await self._restart_postgres()
                continue
            happening = self.random.choices(
                (self._kill_one, self._stop_one, self._drop_sessions, self._activate, self._throttle),
                weights=(4, 2, 2, 2, 2),
            )[0]
            try:
                await happening()
            except (HotMeshError, asyncpg.PostgresError, OSError) as error:
                # The disturber's own session may be among those that are dropped.
                self.report.did[f"disturber failed with {type(error).__name__}"] += 1
        while self._asleep:
            await asyncio.sleep(0.2)
            self._wake_sleepers()
        await self._calm()

    async def _kill_one(self) -> None:
        if ready := self._awake():
            name = self.random.choice(ready)
            self._kill(name)
            if self.random.random() < 0.3:
                await asyncio.sleep(self.random.uniform(0.0, 1.0))
            self.start(name)
            self.report.did["kill -9"] += 1

    async def _stop_one(self) -> None:
        ready = self._awake()
        if len(ready) > len(ROLES) // 2:
            name = self.random.choice(ready)
            self._processes[name][1].send_signal(signal.SIGSTOP)
            self._asleep[name] = time.monotonic() + self.random.uniform(1.2, 2.5) * LEASE
            self.report.did["SIGSTOP beyond a lease"] += 1

    def _wake_sleepers(self) -> None:
        for name, until in list(self._asleep.items()):
            if time.monotonic() >= until:
                del self._asleep[name]
                self._processes[name][1].send_signal(signal.SIGCONT)

    async def _drop_sessions(self) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            pids = [
                row["pid"]
                for row in await connection.fetch(
                    "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
                )
            ]
            for pid in self.random.sample(pids, min(len(pids), self.random.randint(1, 10))):
                await connection.execute("select pg_terminate_backend($1)", pid)
                self.report.did["session dropped"] += 1
        finally:
            await connection.close()

    async def _restart_postgres(self) -> None:
        await asyncio.to_thread(local.stop, self.data, "immediate")
        await asyncio.sleep(self.random.uniform(0.0, 0.5))
        await asyncio.to_thread(local.ensure_running, self.data)
        self.report.did["Postgres restarted"] += 1

    async def _activate(self) -> None:
        async with HotMesh.init(self.random.choice(APPS), connection=self.url, readonly=True) as mesh:
            await mesh.activate(self.random.choice(("1", "2")))
        self.report.did["activation"] += 1

    async def _throttle(self) -> None:
        async with HotMesh.init(self.random.choice(APPS), connection=self.url, readonly=True) as mesh:
            topic = self.random.choice((*TOPICS, None))
            await mesh.throttle(self.random.choice((-1, 20, 100)), topic=topic)
            await asyncio.sleep(self.random.uniform(0.2, 1.0))
            await mesh.throttle(0, topic=topic)
        self.report.did["throttle"] += 1

    async def _calm(self) -> None:
        """Lift every throttle that a dropped session may have left."""
        for app in APPS:
            async with HotMesh.init(app, connection=self.url, readonly=True) as mesh:
                for topic in (*TOPICS, None):
                    await mesh.throttle(0, topic=topic)

    # -- what has to be true -----------------------------------------------------------------------------

    def complain(self, text: str) -> None:
        if len(self.report.problems) < 20:
            self.report.problems.append(text)

    async def settle(self, within: float) -> None:
        """Wait until every job has been created and has ended, and nothing is owed any more."""
        began = time.monotonic()
        connection = await asyncpg.connect(self.url)
        try:
            while owed := await self._owed(connection):
                if time.monotonic() - began > within:
                    self.complain(f"after {within:g} s the mesh still owes {owed}: {self._last_words()}")
                    break
                await asyncio.sleep(0.1)
        finally:
            await connection.close()
        self.report.settling = time.monotonic() - began

    async def _owed(self, connection: asyncpg.Connection) -> dict[str, int]:
        counts = {
            table: await connection.fetchval(f"select count(*) from hotmesh.{table}") for table in OBLIGATIONS
        }
        counts["live jobs"] = await connection.fetchval("select count(*) from hotmesh.job where status > 0")
        created = await connection.fetchval("select count(*) from hotmesh.job where topic = 'order'")
        counts["jobs to create"] = self.report.jobs - created
        return {name: count for name, count in counts.items() if count}

    async def judge(self) -> None:
        """Compare what the database holds, and what the callbacks have seen, with what was promised."""
        connection = await asyncpg.connect(self.url)
        try:
            jobs = await connection.fetch("select * from hotmesh.job")
            records = await connection.fetch(
                "select j.app_id || '/' || j.job_id as job, a.activity_id, count(*) as passes, "
                "bool_and(a.state = 'closed') as closed from hotmesh.job as j join hotmesh.activity as a "
                "using (generation) where j.topic = 'order' group by 1, 2"
            )
            dead = await connection.fetchval("select count(*) from hotmesh.dead_letter")
            left = await connection.fetchval("select count(*) from hotmesh.subscription")
            sessions = await connection.fetch(
                "select application_name from pg_stat_activity where datname = current_database() "
                "and pid <> pg_backend_pid() and backend_type = 'client backend'"
            )
        finally:
            await connection.close()
        self._judge_jobs(jobs)
        self._judge_records(records)
        self._judge_callbacks({str(job["generation"]): f"{job['topic']} {job['job_id']}" for job in jobs})
        if dead or left or sessions:
            self.complain(f"left behind: {dead} dead letters, {left} subscriptions, sessions {sessions}")
        self.report.refused_zombies = self._log.read_text(errors="replace").count("stream-lease-lost")

    def _judge_jobs(self, jobs: list[asyncpg.Record]) -> None:
        topics = Counter((job["app_id"], job["topic"]) for job in jobs)
        wanted = {(app, topic): self.jobs for app in APPS for topic in ("order", "part", "call", "doomed")}
        if topics != wanted:
            self.complain(f"jobs: {dict(topics)}, wanted {self.jobs} of each")
        for job in jobs:
            name = f"{job['app_id']}/{job['job_id']}"
            if job["topic"] == "doomed":
                if job["status"] > -1_000:
                    self.complain(f"{name} was not interrupted: status {job['status']}")
                continue
            data = json.loads(job["data"] or "{}")
            right = job["topic"] != "order" or data == expected(int(job["job_id"].removeprefix("order-")))
            if job["status"] != 0 or job["error"] is not None or not right:
                self.complain(f"{name} has status {job['status']}, error {job['error']}, {data}")

    def _judge_records(self, records: list[asyncpg.Record]) -> None:
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for row in records:
            found[row["job"]][row["activity_id"]] = row["passes"]
            if not row["closed"]:
                self.complain(f"{row['job']} has an open record of {row['activity_id']}")
        for job, passes in found.items():
            if passes != RECORDS:
                self.complain(f"{job} has the records {passes}")

    def _judge_callbacks(self, jobs: dict[str, str]) -> None:
        runs = Counter(
            (entry["gid"], entry["activity"], entry["address"])
            for entry in entries(self.ledger)
            if entry["what"] == "run"
        )
        self.report.callbacks = runs.total()
        self.report.repeated_callbacks = (
            runs.total() - len(runs) - self.report.jobs
        )  # `flaky` has to run twice
        if len(runs) != (wanted := self.report.jobs * CALLBACKS):
            strange = [key for key in runs if key[0] not in jobs]
            self.complain(
                f"{len(runs)} different messages reached callbacks, not {wanted}; of no job: {strange[:5]}"
            )


async def run(directory: Path, *, jobs: int, rate: float, seconds: float, seed: int) -> ChaosReport:
    """All of it, on a Postgres of its own with full durability in `directory`. `jobs`: in each app."""
    began = time.monotonic()
    data = directory / "postgres"
    server = await asyncio.to_thread(local.ensure_running, data)
    try:
        chaos = Chaos(directory, server.dsn, data, jobs=jobs, rate=rate, seed=seed)
        await chaos.prepare()
        async with chaos.running():
            await chaos.disturb(seconds)
            await chaos.settle(90)
            await chaos.leave()
        await chaos.judge()
    finally:
        await asyncio.to_thread(local.stop, data, "immediate")
    chaos.report.seconds = time.monotonic() - began
    return chaos.report
