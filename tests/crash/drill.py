"""A drill: processes of one mesh under load, killed and started again at random, and the Postgres with them.

Used by the crash test for seconds and by `python -m tests.soak` for minutes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
from fleet import Findings, Fleet, Role, durable_postgres
from member import APP, FLOW, LEASE, RECORDS, TURNS, expected

from hotmesh import HotMesh

ROLES = (
    Role("both-a", engine=True, worker=True),
    Role("both-b", engine=True, worker=True),
    Role("engine", engine=True, worker=False),
    Role("worker", engine=False, worker=True),
)

ENOUGH = 6
"""Kills without which a drill shows little."""

SLACK = 3.0
"""Seconds from the end of a lease to the next run that a busy machine may need."""


@dataclass
class Report(Findings):
    """What a drill found."""

    kills: int = 0
    restarts_of_postgres: int = 0
    runs: int = 0
    repeated_runs: int = 0
    slowest_takeover: float = 0.0

    def summary(self) -> str:
        """One line of figures."""
        return (
            f"seed {self.seed}: {self.jobs} jobs, {self.runs} callbacks ({self.repeated_runs} repeated), "
            f"{self.kills} kills, {self.restarts_of_postgres} Postgres restarts in {self.seconds:.0f} s; "
            f"slowest takeover {self.slowest_takeover:.2f} s, settled in {self.settling:.1f} s: {self.verdict}"
        )


class Drill(Fleet):
    """The fleet of one drill."""

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
        self.report = Report(seed, jobs=jobs)
        program = Path(__file__).with_name("member.py")
        super().__init__(directory, url, self.report, program=program, apps=[APP], roles=roles, rate=rate)
        self.outages: list[tuple[float, float]] = []
        self._up: dict[str, float] = {}

    def kill(self, role: Role) -> None:
        """`kill -9`."""
        super().kill(role)
        self.report.kills += 1

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
                self.outages.append(await self.restart_postgres(pending))
                self.report.restarts_of_postgres += 1
                pending = None
                continue
            if not (ready := self.serving()):
                continue
            role = self.random.choice(ready)
            self.kill(role)
            if self.random.random() < 0.3:
                await asyncio.sleep(self.random.uniform(0.0, 1.0))
            self.start(role)

    # -- what has to be true -----------------------------------------------------------------------------

    async def judge(self) -> None:
        """Compare what the database holds, and what the callbacks have seen, with what was promised."""
        connection = await asyncpg.connect(self.url)
        try:
            await self._judge_jobs(connection)
            await self.judge_records(connection, RECORDS)
            jobs = await connection.fetch(
                "select generation, job_id, topic from hotmesh.job where app_id = $1", APP
            )
        finally:
            await connection.close()
        self._judge_runs({str(row["generation"]): f"{row['topic']} {row['job_id']}" for row in jobs})

    async def _judge_jobs(self, connection: asyncpg.Connection) -> None:
        complain = self.report.complain
        rows = await connection.fetch(
            "select job_id, status, data, error, topic from hotmesh.job where app_id = $1", APP
        )
        orders = {row["job_id"]: row for row in rows if row["topic"] == "order"}
        if missing := {f"order-{n}" for n in range(self.jobs)} - orders.keys():
            complain(f"never created: {sorted(missing)[:5]}")
        if len(rows) != 2 * len(orders):
            complain(f"{len(rows) - len(orders)} children of {len(orders)} jobs")
        for job_id, row in orders.items():
            data = json.loads(row["data"] or "{}")
            wanted = expected(int(job_id.removeprefix("order-")))
            if row["status"] != 0 or row["error"] is not None or data != wanted:
                complain(
                    f"{job_id} has status {row['status']}, error {row['error']}, {data}; wanted {wanted}"
                )
        if dead := await connection.fetchval(
            "select count(*) from hotmesh.dead_letter where app_id = $1", APP
        ):
            complain(f"{dead} dead letters")

    def _judge_runs(self, jobs: Mapping[str, str]) -> None:
        """A callback runs again only when its message was taken from a process that died, or lost its Postgres."""
        runs = self.runs()
        self.report.runs = sum(map(len, runs.values()))
        self._up = self.began_at()
        if len(runs) != (wanted := self.jobs * 8):
            self.report.complain(f"{len(runs)} different messages reached callbacks, not {wanted}")
            seen = Counter((jobs.get(gid, f"no job {gid}"), activity) for gid, activity, _ in runs)
            odd = {
                key: number for key, number in seen.items() if number != (TURNS if key[1] == "turn" else 1)
            } | {key: number for key, number in seen.items() if key[0].startswith("no job")}
            self.report.complain(f"more or fewer than expected: {odd}")
        for key, times in runs.items():
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
            self.report.complain(
                f"{key} ran in {before['member']}, which lived, and {after['at'] - before['at']:.2f} s later again"
            )
            return
        lapsed = max(died, before["at"]) + LEASE
        waited = after["at"] - self._next_worker(lapsed)
        self.report.slowest_takeover = max(self.report.slowest_takeover, waited)
        if waited > SLACK:
            self.report.complain(
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
    async with durable_postgres(directory) as (data, url):
        drill = Drill(directory, url, jobs=jobs, rate=rate, seed=seed)
        await drill.prepare()
        with drill.running():
            await drill.disturb(disturbance, data)
            await drill.settle(settle_within)
        await drill.judge()
    drill.report.seconds = time.monotonic() - began
    return drill.report
