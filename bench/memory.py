"""Resident memory of an engine over many flows: flat, or growing?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import fixtures
import scenarios
from contender import Contender, started
from report import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster import Cluster

SETTLED_AFTER = 20_000  # flows; caches and pools are full by then
SAMPLE_EVERY = 5_000
SAMPLE_TIMEOUT = 600
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    flows: int
    mebibytes: float


@dataclass(frozen=True, slots=True)
class MemoryCurve:
    """Samples of one engine's memory."""

    samples: list[Sample]

    @property
    def settled(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.flows >= SETTLED_AFTER]

    @property
    def growth(self) -> float:
        """Mebibytes gained from the settled state to the end."""
        return self.settled[-1].mebibytes - self.settled[0].mebibytes

    @property
    def growth_per_100k(self) -> float:
        """Mebibytes gained with every 100,000 flows, by least squares over the settled samples."""
        samples = self.settled
        mean_flows = sum(sample.flows for sample in samples) / len(samples)
        mean_size = sum(sample.mebibytes for sample in samples) / len(samples)
        spread = sum((sample.flows - mean_flows) ** 2 for sample in samples)
        if spread == 0:
            return 0.0
        slope = sum((s.flows - mean_flows) * (s.mebibytes - mean_size) for s in samples) / spread
        return slope * 100_000


async def measure_memory(cluster: Cluster, flows: int, progress: Callable[[str], None]) -> MemoryCurve:
    """Run this many one-activity flows, 50 at a time, through one process that is engine and worker."""
    database = scenarios.PLAIN
    await fixtures.prepare(cluster, database)
    async with started(Contender("memory", database, (scenarios.OURS,)), cluster.dsn(database)) as [mesh]:
        samples = [Sample(0, mesh.memory() / MIB)]
        for done in range(SAMPLE_EVERY, flows + 1, SAMPLE_EVERY):
            load = {"do": "load", "flow": "one", "concurrency": 50, "flows": SAMPLE_EVERY, "seconds": None}
            await mesh.ask(load, SAMPLE_TIMEOUT)
            samples.append(Sample(done, mesh.memory() / MIB))
            progress(f"{done:>9,} flows  {samples[-1].mebibytes:,.1f} MiB")
    await cluster.drop(database)
    return MemoryCurve(samples)


def markdown_of_memory(curve: MemoryCurve) -> str:
    rows = [[f"{sample.flows:,}", f"{sample.mebibytes:,.1f}"] for sample in _some(curve.samples)]
    rows.append([f"growth after {SETTLED_AFTER:,} flows", f"{curve.growth:+,.1f}"])
    rows.append(["growth per 100,000 flows", f"{curve.growth_per_100k:+,.2f}"])
    return table(["flows", "resident memory, MiB"], rows)


def _some(samples: list[Sample]) -> list[Sample]:
    """A dozen of the samples: enough to see the curve."""
    step = max(1, SETTLED_AFTER // SAMPLE_EVERY)
    return [sample for place, sample in enumerate(samples) if place % step == 0 or sample is samples[-1]]
