"""Runs one load against one contender and counts what it cost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cluster as postgres
from contender import started

if TYPE_CHECKING:
    from cluster import Cluster
    from contender import Contender, RunningProcess
    from scenarios import Scenario

ANSWER_TIMEOUT = 120  # beyond the time that the load itself was given


@dataclass(frozen=True, slots=True)
class Measurement:
    """One round of one contender. CPU times are milliseconds for each flow; `writes` are the commits that wrote."""

    flows: int
    flows_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    commits_per_flow: float
    writes_per_flow: float
    application_cpu_ms: float
    postgres_cpu_ms: float | None


class Meter:
    """Measures the contenders of one cluster."""

    def __init__(self, cluster: Cluster, seconds: float) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self._overheads: dict[tuple[str, Contender], int] = {}

    async def measure(self, scenario: Scenario, contender: Contender) -> Measurement:
        overhead = await self._overhead(scenario, contender)
        postmaster = await self._cluster.postmaster()
        before = await self._cluster.commits(contender.database)
        await self._cluster.checkpoint()

        async with started(contender, self._cluster.dsn(contender.database)) as processes:
            await warm_up(processes, scenario)
            application = [process.cpu_seconds() for process in processes]
            writes = await self._cluster.writes()
            server = postgres.cpu_seconds(postmaster) if postmaster else 0.0
            timings = await _drive(
                processes, load_request(scenario, seconds=self._seconds), self._seconds + ANSWER_TIMEOUT
            )
            server = postgres.cpu_seconds(postmaster) - server if postmaster else 0.0
            writes = await self._cluster.writes() - writes
            spent = sum(process.cpu_seconds() for process in processes) - sum(application)

        commits = await self._cluster.commits(contender.database) - before - overhead
        flows = sum(timing["flows"] for timing in timings)
        return Measurement(
            flows=flows,
            flows_per_second=sum(timing["flows"] / timing["seconds"] for timing in timings),
            p50_ms=max(timing["p50_ms"] for timing in timings),
            p99_ms=max(timing["p99_ms"] for timing in timings),
            max_ms=max(timing["max_ms"] for timing in timings),
            commits_per_flow=commits / flows,
            writes_per_flow=writes / flows,
            application_cpu_ms=spent * 1000 / flows,
            postgres_cpu_ms=server * 1000 / flows if postmaster else None,
        )

    async def _overhead(self, scenario: Scenario, contender: Contender) -> int:
        """The commits of starting, warming up and stopping: what a round costs apart from its load."""
        key = (scenario.name, contender)
        if key not in self._overheads:
            before = await self._cluster.commits(contender.database)
            async with started(contender, self._cluster.dsn(contender.database)) as processes:
                await warm_up(processes, scenario)
            self._overheads[key] = await self._cluster.commits(contender.database) - before
        return self._overheads[key]


async def warm_up(processes: list[RunningProcess], scenario: Scenario) -> None:
    await _drive(processes, load_request(scenario, flows=scenario.warm_up), ANSWER_TIMEOUT)


async def _drive(
    processes: list[RunningProcess], load: dict[str, Any], timeout: float
) -> list[dict[str, Any]]:
    """Put the load on every process that drives flows, at once."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(process.ask(load, timeout)) for process in processes if process.drives]
    return [task.result() for task in asked]


def load_request(
    scenario: Scenario, *, flows: int | None = None, seconds: float | None = None
) -> dict[str, Any]:
    return {
        "do": "load",
        "flow": scenario.flow,
        "concurrency": scenario.concurrency,
        "flows": flows,
        "seconds": seconds,
    }
