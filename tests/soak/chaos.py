"""Chaos: eight processes of two apps under load, and everything that can happen to them at random.

`kill -9`, SIGSTOP for longer than a lease, sessions ended by the server, a Postgres that is restarted, versions that are
activated and consumers that are throttled all the while. In the end nothing may be lost, or have counted twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from chaos_member import APPS, CALLBACKS, RECORDS, TOPICS, expected, graphs
from fleet import Findings, Fleet, Role, durable_postgres
from member import LEASE

from hotmesh import HotMesh, HotMeshError

ROLES = (
    *(Role(f"both-{letter}", engine=True, worker=True) for letter in "abcd"),
    *(Role(f"engine-{letter}", engine=True, worker=False) for letter in "ab"),
    *(Role(f"worker-{letter}", engine=False, worker=True) for letter in "ab"),
)


@dataclass
class ChaosReport(Findings):
    """What came of it."""

    callbacks: int = 0
    repeated_callbacks: int = 0
    refused_zombies: int = 0
    did: dict[str, int] = field(default_factory=Counter)

    def summary(self) -> str:
        """One line of figures."""
        events = ", ".join(f"{number} × {what}" for what, number in sorted(self.did.items()))
        return (
            f"seed {self.seed}: {self.jobs} jobs in {len(APPS)} apps, {self.callbacks} callbacks "
            f"({self.repeated_callbacks} repeated) in {self.seconds:.0f} s; {events}; {self.refused_zombies} late answers "
            f"refused; settled in {self.settling:.1f} s: {self.verdict}"
        )


class Chaos(Fleet):
    """The processes, and what happens to them."""

    def __init__(self, directory: Path, url: str, data: Path, *, jobs: int, rate: float, seed: int) -> None:
        """`jobs`: in each app."""
        self.report = ChaosReport(seed, jobs=jobs * len(APPS))
        program = Path(__file__).with_name("chaos_member.py")
        super().__init__(directory, url, self.report, program=program, apps=APPS, roles=ROLES, rate=rate)
        self.data = data
        self._asleep: dict[Role, float] = {}

    def _awake(self) -> list[Role]:
        return [role for role in self.serving() if role not in self._asleep]

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
                await self.restart_postgres(self.data)
                self.report.did["Postgres restarted"] += 1
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
            role = self.random.choice(ready)
            self.kill(role)
            if self.random.random() < 0.3:
                await asyncio.sleep(self.random.uniform(0.0, 1.0))
            self.start(role)
            self.report.did["kill -9"] += 1

    async def _stop_one(self) -> None:
        ready = self._awake()
        if len(ready) > len(ROLES) // 2:
            role = self.random.choice(ready)
            self.stall(role)
            self._asleep[role] = time.monotonic() + self.random.uniform(1.2, 2.5) * LEASE
            self.report.did["SIGSTOP beyond a lease"] += 1

    def _wake_sleepers(self) -> None:
        for role, until in list(self._asleep.items()):
            if time.monotonic() >= until:
                del self._asleep[role]
                self.wake(role)

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

    async def judge(self) -> None:
        """Compare what the database holds, and what the callbacks have seen, with what was promised."""
        connection = await asyncpg.connect(self.url)
        try:
            jobs = await connection.fetch("select * from hotmesh.job")
            await self.judge_records(connection, RECORDS)
            dead = await connection.fetchval("select count(*) from hotmesh.dead_letter")
            left = await connection.fetchval("select count(*) from hotmesh.subscription")
            sessions = await connection.fetch(
                "select application_name from pg_stat_activity where datname = current_database() "
                "and pid <> pg_backend_pid() and backend_type = 'client backend'"
            )
        finally:
            await connection.close()
        self._judge_jobs(jobs)
        self._judge_callbacks({str(job["generation"]): f"{job['topic']} {job['job_id']}" for job in jobs})
        if dead or left or sessions:
            self.report.complain(
                f"left behind: {dead} dead letters, {left} subscriptions, sessions {sessions}"
            )
        self.report.refused_zombies = self.last_words().count("stream-lease-lost")

    def _judge_jobs(self, jobs: list[asyncpg.Record]) -> None:
        topics = Counter((job["app_id"], job["topic"]) for job in jobs)
        each = self.jobs // len(APPS)
        wanted = {(app, topic): each for app in APPS for topic in ("order", "part", "call", "doomed")}
        if topics != wanted:
            self.report.complain(f"jobs: {dict(topics)}, wanted {each} of each")
        for job in jobs:
            name = f"{job['app_id']}/{job['job_id']}"
            if job["topic"] == "doomed":
                if job["status"] > -1_000:
                    self.report.complain(f"{name} was not interrupted: status {job['status']}")
                continue
            data = json.loads(job["data"] or "{}")
            right = job["topic"] != "order" or data == expected(int(job["job_id"].removeprefix("order-")))
            if job["status"] != 0 or job["error"] is not None or not right:
                self.report.complain(f"{name} has status {job['status']}, error {job['error']}, {data}")

    def _judge_callbacks(self, jobs: dict[str, str]) -> None:
        runs = self.runs()
        self.report.callbacks = sum(map(len, runs.values()))
        # `flaky` has to run twice.
        self.report.repeated_callbacks = self.report.callbacks - len(runs) - self.report.jobs
        if len(runs) != (wanted := self.report.jobs * CALLBACKS):
            strange = [key for key in runs if key[0] not in jobs]
            self.report.complain(
                f"{len(runs)} different messages reached callbacks, not {wanted}; of no job: {strange[:5]}"
            )


async def run(directory: Path, *, jobs: int, rate: float, seconds: float, seed: int) -> ChaosReport:
    """All of it, on a Postgres of its own with full durability in `directory`. `jobs`: in each app."""
    began = time.monotonic()
    async with durable_postgres(directory) as (data, url):
        chaos = Chaos(directory, url, data, jobs=jobs, rate=rate, seed=seed)
        await chaos.prepare()
        with chaos.running():
            await chaos.disturb(seconds)
            await chaos.settle(90)
            await chaos.leave(within=20)
        await chaos.judge()
    chaos.report.seconds = time.monotonic() - began
    return chaos.report
