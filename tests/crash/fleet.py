"""Processes of one or more meshes under load, which a test kills, stops and starts again; and what is found afterwards.

The drill of the crash test and the chaos of `python -m tests.soak` are fleets. What happened is read from two sources that
know nothing of each other: the database, and the file in which the callbacks left a line each time they ran.
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
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from harness import owed
from hotmesh.postgres import local
from ledger import entries


@dataclass(frozen=True)
class Role:
    """What a process of a fleet is."""

    name: str
    engine: bool
    worker: bool


@dataclass
class Findings:
    """What came of it. `problems` is empty if every promise was kept."""

    seed: int
    seconds: float = 0.0
    jobs: int = 0
    settling: float = 0.0
    problems: list[str] = field(default_factory=list)

    def complain(self, text: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(text)

    @property
    def verdict(self) -> str:
        return f"{len(self.problems)} PROBLEMS" if self.problems else "nothing lost, nothing twice"


class Fleet:
    """The processes, and what is known about them. Each with an engine creates its share of the jobs."""

    def __init__(
        self,
        directory: Path,
        url: str,
        findings: Findings,
        *,
        program: Path,
        apps: Sequence[str],
        roles: Sequence[Role],
        rate: float,
    ) -> None:
        """`program` is what a process runs, with its order as an argument; `rate`: jobs per second and app."""
        self.url = url
        self.findings = findings
        self.program = program
        self.apps = apps
        self.roles = roles
        self.rate = rate
        self.jobs = findings.jobs
        """On `order`, in all apps together."""
        self.random = random.Random(findings.seed)
        self.killed: dict[str, float] = {}
        """When a process died or fell asleep, by its name in Postgres."""
        self.ledger = directory / "ledger.jsonl"
        self.ledger.touch()
        self._log = directory / "members.log"
        self._processes: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        self._numbers = Counter[str]()

    # -- processes ---------------------------------------------------------------------------------------

    def start(self, role: Role) -> None:
        """Start the process of a role, or its successor."""
        self._numbers[role.name] += 1
        member = f"{role.name}-{self._numbers[role.name]}"
        engines = [other.name for other in self.roles if other.engine]
        order = {
            "member": member,
            "url": self.url,
            "ledger": str(self.ledger),
            "engine": role.engine,
            "worker": role.worker,
            "publish": [
                engines.index(role.name),
                len(engines),
                self.jobs // len(self.apps),
                self.rate / len(engines),
            ]
            if role.engine
            else None,
        }
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(self.program), json.dumps(order)],
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
            self.findings.complain(
                f"{member} had ended by itself ({process.returncode}): {self.last_words()[-2_000:]}"
            )

    def stall(self, role: Role) -> None:
        """Stop a process as a machine that swaps would; others may take over its work from now on."""
        member, process = self._processes[role.name]
        process.send_signal(signal.SIGSTOP)
        self.killed[member] = time.time()

    def wake(self, role: Role) -> None:
        """Let a stalled process go on where it was."""
        self._processes[role.name][1].send_signal(signal.SIGCONT)

    async def leave(self, within: float) -> None:
        """End all processes politely; they must drain, and leave nothing."""
        for _, process in self._processes.values():
            process.terminate()
        for member, process in self._processes.values():
            try:
                code = await asyncio.to_thread(process.wait, within)
            except subprocess.TimeoutExpired:
                self.findings.complain(f"{member} did not stop within {within:g} s")
                continue
            if code != 0:
                self.findings.complain(f"{member} ended with {code}: {self.last_words()[-2_000:]}")
        self._processes.clear()

    def end(self) -> None:
        for _, process in self._processes.values():
            process.kill()  # ends one that is stopped, too
            process.wait()
        self._processes.clear()

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            for role in self.roles:
                self.start(role)
            yield
        finally:
            self.end()

    def member(self, role: Role) -> str:
        """The name of its process, also in Postgres."""
        return self._processes[role.name][0]

    def serving(self) -> list[Role]:
        """The roles whose process serves: to kill one that is still importing would show little."""
        up = self.began_at()
        return [role for role in self.roles if role.name in self._processes and self.member(role) in up]

    # -- what they said ----------------------------------------------------------------------------------

    def last_words(self) -> str:
        """All that the processes have written."""
        return self._log.read_text(errors="replace")

    def began_at(self) -> dict[str, float]:
        """When each process began to serve."""
        return {entry["member"]: entry["at"] for entry in entries(self.ledger) if entry["what"] == "up"}

    def runs(self) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
        """How often the callbacks ran for each message: generation, activity and address → in order."""
        runs: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
        for entry in entries(self.ledger):
            if entry["what"] == "run":
                runs[entry["gid"], entry["activity"], entry["address"]].append(entry)
        for times in runs.values():
            times.sort(key=lambda entry: entry["at"])
        return runs

    # -- their Postgres ----------------------------------------------------------------------------------

    async def restart_postgres(self, data: Path) -> tuple[float, float]:
        """As after a crash of the server; from when to when it was away."""
        began = time.time()
        await asyncio.to_thread(local.stop, data, "immediate")
        await asyncio.sleep(self.random.uniform(0.0, 0.5))
        await asyncio.to_thread(local.ensure_running, data)
        return began, time.time()

    async def settle(self, within: float) -> None:
        """Wait until every job has been created and has ended, and nothing is owed any more."""
        began = time.monotonic()
        connection = await asyncpg.connect(self.url)
        try:
            while left := await self.owed(connection):
                if time.monotonic() - began > within:
                    self.findings.complain(
                        f"after {within:g} s the mesh still owes {left}: {self.last_words()[-2_000:]}"
                    )
                    break
                await asyncio.sleep(0.05)
        finally:
            await connection.close()
        self.findings.settling = time.monotonic() - began

    async def owed(self, connection: asyncpg.Connection) -> dict[str, int]:
        """What is still to come: rows of obligations, jobs that live, and jobs that are still to be created."""
        found = Counter[str]()
        for app in self.apps:
            found.update(await owed(connection, app))
        created = await connection.fetchval("select count(*) from hotmesh.job where topic = 'order'")
        found["jobs to create"] = self.jobs - created
        return {name: count for name, count in found.items() if count}

    async def judge_records(self, connection: asyncpg.Connection, wanted: Mapping[str, int]) -> None:
        """Each pass of each activity has one closed record (that is the primary key), and there are as many as passes."""
        rows = await connection.fetch(
            "select j.app_id || '/' || j.job_id as job, a.activity_id, count(*) as passes, "
            "bool_and(a.state = 'closed') as closed from hotmesh.job as j join hotmesh.activity as a "
            "using (generation) where j.topic = 'order' group by 1, 2"
        )
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for row in rows:
            found[row["job"]][row["activity_id"]] = row["passes"]
            if not row["closed"]:
                self.findings.complain(f"{row['job']} has an open record of {row['activity_id']}")
        for job, passes in found.items():
            if passes != wanted:
                self.findings.complain(f"{job} has the records {passes}")


@asynccontextmanager
async def durable_postgres(directory: Path) -> AsyncIterator[tuple[Path, str]]:
    """A Postgres of its own, gone afterwards: its data directory and URL.

    With full durability: a commit that was answered must outlast `-m immediate`, and everything is judged by that.
    """
    data = directory / "postgres"
    server = await asyncio.to_thread(local.ensure_running, data)
    try:
        yield data, server.dsn
    finally:
        await asyncio.to_thread(local.stop, data, "immediate")
