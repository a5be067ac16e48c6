"""Measure what must stay flat: the cost of a pass, a hook, a child and a sleeper when there are many of them.

`make bench` runs it at the end; `python bench/scale.py --help` for parts of it.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from statistics import median
from typing import TYPE_CHECKING, Any

import asyncpg

import contender
import scale_flows as flows
from cluster import cpu_seconds, open_cluster
from contender import Contender, Process, started
from report import machine, markdown_of_pairs, now, say, table, write_results

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from cluster import Cluster
    from contender import RunningProcess

DATABASE = "bench_scale"
TIMEOUT = 600
MIB = 2**20

BOTH = Process("scale_side.py", ("both",))
UNCACHED = Process("scale_side.py", ("both", "--settings", '{"cache_jobs": 0}'))
FIRST = Process("scale_side.py", ("first",))
SECOND = Process("scale_side.py", ("second",), drives=False)


@dataclass(frozen=True, slots=True)
class Table:
    """One table of figures."""

    name: str
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def markdown(self) -> str:
        return f"### {self.title}\n\n" + table(
            self.heads, [[_text(cell) for cell in row] for row in self.rows]
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of each there are."""

    marks: tuple[int, ...] = (100, 1_000, 9_899)
    marks_apart: tuple[int, ...] = (100, 1_000, 2_000)
    window: int = 100
    turns: tuple[int, ...] = (10, 100, 1_000, 10_000)
    children: tuple[int, ...] = (10, 100, 1_000, 10_000)
    sleepers: int = 50_000
    idle: float = 10.0


QUICK = Sizes((100, 1_000), (100, 300), 50, (10, 1_000), (10, 300), 2_000, 2.0)


class Bench:
    """One run: every section starts processes of its own on an empty database."""

    def __init__(self, cluster: Cluster, sizes: Sizes) -> None:
        self.cluster = cluster
        self.sizes = sizes

    async def passes(self) -> Table:
        """A cycle with a worker: late passes beside the first passes of a fresh job, taking turns."""
        arrangements = [
            ("one process", "turns", (BOTH,), self.sizes.marks),
            ("nothing cached", "turns", (UNCACHED,), self.sizes.marks),
            ("two engines take turns", "exchange", (FIRST, SECOND), self.sizes.marks_apart),
        ]
        rows = []
        for label, flow, processes, marks in arrangements:
            request = {
                "do": "passes",
                "flow": flow,
                "marks": marks,
                "window": self.sizes.window,
            }
            async with self._fresh(*processes) as [driver, *_]:
                answer = await driver.ask(request, TIMEOUT)
            for found in answer["passes"]:
                last = found["pass"] + self.sizes.window
                rows.append(
                    (
                        label,
                        f"{found['pass']:,}–{last:,}",
                        found["fresh_ms"],
                        found["ms"],
                        found["ms"] / found["fresh_ms"],
                        found["cpu_ms"] / found["fresh_cpu_ms"],
                    )
                )
                say(f"passes: {label} {rows[-1]}")
        heads = ["", "passes", "ms at pass 10", "ms at this pass", "ratio", "ratio of engine CPU"]
        return Table(
            "passes",
            "A cycle with a worker: one pass late in a job, beside one early in a fresh job",
            heads,
            rows,
        )

    async def turns(self) -> Table:
        """A cycle in which nothing waits."""
        rows: list[tuple[Any, ...]] = []
        async with self._fresh(BOTH) as [driver]:
            await driver.ask(_one("passthrough", 5, limit=10), TIMEOUT)
            for count in self.sizes.turns:
                writes, milliseconds = await self._one(
                    driver, "passthrough", 5 if count < 1000 else 3, limit=count
                )
                rows.append(_row(count, milliseconds, writes, rows))
                say(f"turns: {rows[-1]}")
        heads = ["passes", "ms", "µs a pass", "commits", "ratio a pass"]
        return Table("turns", "A cycle in which nothing waits", heads, rows)

    async def hooks(self) -> Table:
        """Hooks in a row, each of which passes through."""
        rows: list[tuple[Any, ...]] = []
        async with self._fresh(BOTH) as [driver]:
            for count in flows.HOOKS:
                await driver.ask(_one(flows.hooks(count), 3), TIMEOUT)
                writes, milliseconds = await self._one(driver, flows.hooks(count), 20)
                rows.append(_row(count, milliseconds, writes, rows))
                say(f"hooks: {rows[-1]}")
        heads = ["hooks", "ms", "µs a hook", "commits", "ratio a hook"]
        return Table("hooks", "Hooks in a row that pass through", heads, rows)

    async def children(self) -> Table:
        """Parents with more and more children."""
        kinds = [
            ("awaited, each with a worker", "spawn-worker"),
            ("awaited, only computing", "spawn-compute"),
            ("not awaited, each with a worker", "spawn-severed"),
        ]
        rows: list[tuple[Any, ...]] = []
        for label, topic in kinds:
            async with self._fresh(BOTH) as [driver]:
                await driver.ask(_one(topic, 5, limit=10), TIMEOUT)
                held_against: tuple[float, float] | None = None
                for count in self.sizes.children:
                    times = max(1, min(20, 300 // count))
                    writes, cpu = await self.cluster.writes(), await self._cpu(driver)
                    begun = asyncio.get_running_loop().time()
                    await driver.ask(_one(topic, times, limit=count), TIMEOUT)
                    await self._until("select not exists (select from hotmesh.job where status > 0)")
                    spent = (asyncio.get_running_loop().time() - begun) * 1000 / times / count
                    engine, server = (
                        (late - early) * 1000 / times / count
                        for early, late in zip(cpu, await self._cpu(driver), strict=True)
                    )
                    commits = (await self.cluster.writes() - writes) / times / count
                    held_against = held_against or (spent, engine + server)
                    ratios = spent / held_against[0], (engine + server) / held_against[1]
                    rows.append((label, f"{count:,}", spent, commits, engine, server, *ratios))
                    say(f"children: {rows[-1]}")
        heads = [
            "",
            "children",
            "ms a child",
            "commits a child",
            "engine CPU ms",
            "Postgres CPU ms",
            "ratio of ms",
            "ratio of CPU",
        ]
        return Table("children", "A parent of many children", heads, rows)

    async def sleepers(self) -> Table:
        """Jobs that sleep: what they cost while nothing happens, and when their timers fire."""
        count, seconds = self.sizes.sleepers, self.sizes.idle
        rows: list[tuple[str, Any]] = []
        async with self._fresh(BOTH) as [driver]:
            await driver.ask(_one("sleep", 20, seconds=0.01), TIMEOUT)
            await self._settle()
            empty = await self._idle(driver, seconds)
            memory = driver.memory() / MIB
            await driver.ask(
                {"do": "many", "flow": "sleep", "data": {"seconds": flows.LONG}, "count": count}, TIMEOUT
            )
            rows.append(("memory of the engine, MiB: before", memory))
            rows.append((f"memory of the engine, MiB: {count:,} jobs asleep", driver.memory() / MIB))
            await self._settle()
            full = await self._idle(driver, seconds)
            for name, before, after in zip(
                ("engine CPU, %", "Postgres CPU, %", "transactions a second"), empty, full, strict=True
            ):
                rows.append((f"idle, no job: {name}", before))
                rows.append((f"idle, {count:,} jobs asleep: {name}", after))
            rows += await self._few_fire(driver)
            rows += await self._all_fire(count)
        for row in rows:
            say(f"sleepers: {row}")
        return Table("sleepers", f"{count:,} sleeping jobs", ["", "figure"], rows)

    async def _few_fire(self, driver: RunningProcess) -> list[tuple[str, Any]]:
        """Ten timers, one after the other, while everybody else sleeps."""
        delays = [1.5 + 0.173 * number for number in range(10)]
        for delay in delays:
            await driver.ask({"do": "many", "flow": "sleep", "data": {"seconds": delay}, "count": 1}, TIMEOUT)
        await self.cluster.execute(
            DATABASE,
            "create table due as select generation, due_at from hotmesh.timer where due_at < now() + interval '1 minute'",
        )
        await asyncio.sleep(max(delays) + 1)
        late = await self._lateness(len(delays))
        return [("ten timers on an idle system: latest, ms after it was due", late[-1] * 1000)]

    async def _all_fire(self, count: int) -> list[tuple[str, Any]]:
        """All timers at once: within one second, and with nothing else to do."""
        await self.cluster.execute(
            DATABASE,
            "update hotmesh.timer set due_at = clock_timestamp() + interval '2 seconds' + random() * interval '1 second';"
            "drop table due; create table due as select generation, due_at from hotmesh.timer",
        )
        await self._until("select not exists (select from hotmesh.timer)")
        late = await self._lateness(count)
        [seconds] = await self._values(
            "select extract(epoch from max(ended_at) - min(ended_at)) from hotmesh.job join due using (generation)"
        )
        return [
            (f"{count:,} timers within one second: fired per second", count / seconds),
            (f"{count:,} timers within one second: p50, s after it was due", median(late)),
            (f"{count:,} timers within one second: latest, s after it was due", late[-1]),
        ]

    async def _lateness(self, count: int) -> list[float]:
        """Seconds from the moments kept in the table `due` to the ends of the jobs, in order."""
        late = await self._values(
            "select extract(epoch from ended_at - due_at) from hotmesh.job join due using (generation) "
            "where status = 0 order by 1"
        )
        if len(late) != count:
            raise RuntimeError(f"{count} timers should have fired, not {len(late)}")
        return late

    # -- measuring ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _fresh(self, *processes: Process) -> AsyncIterator[list[RunningProcess]]:
        """Processes on an empty database of their own."""
        await self.cluster.recreate(DATABASE)
        async with started(Contender("scale", DATABASE, processes), self.cluster.dsn(DATABASE)) as running:
            yield running
        await self.cluster.drop(DATABASE)

    async def _one(self, driver: RunningProcess, topic: str, times: int, **data: Any) -> tuple[float, float]:
        """Commits and milliseconds of one flow; the median of some."""
        writes = await self.cluster.writes()
        answer = await driver.ask(_one(topic, times, **data), TIMEOUT)
        return (await self.cluster.writes() - writes) / times, median(answer["ms"])

    async def _cpu(self, driver: RunningProcess) -> tuple[float, float]:
        postmaster = await self.cluster.postmaster()
        return driver.cpu_seconds(), cpu_seconds(postmaster) if postmaster else float("nan")

    async def _idle(self, driver: RunningProcess, seconds: float) -> tuple[float, float, float]:
        """CPU in percent of one core, of the engine and of Postgres, and transactions a second."""
        counted = "select xact_commit from pg_stat_database where datname = current_database()"
        [commits] = await self._values(counted)
        early = await self._cpu(driver)
        await asyncio.sleep(seconds)
        late = await self._cpu(driver)
        [after] = await self._values(counted)
        engine, server = ((b - a) / seconds * 100 for a, b in zip(early, late, strict=True))
        return engine, server, (after - commits) / seconds

    async def _settle(self) -> None:
        """Do now what Postgres would do by itself in the background some time later."""
        await self.cluster.execute(DATABASE, "vacuum analyze")
        await self.cluster.checkpoint()
        await asyncio.sleep(2)

    async def _until(self, query: str) -> None:
        connection = await asyncpg.connect(self.cluster.dsn(DATABASE))
        try:
            async with asyncio.timeout(TIMEOUT):
                while not await connection.fetchval(query):  # noqa: ASYNC110 - Postgres tells nobody
                    await asyncio.sleep(0.02)
        finally:
            await connection.close()

    async def _values(self, query: str) -> list[float]:
        connection = await asyncpg.connect(self.cluster.dsn(DATABASE))
        try:
            return [float(row[0]) for row in await connection.fetch(query)]
        finally:
            await connection.close()


SECTIONS: dict[str, Callable[[Bench], Awaitable[Table]]] = {
    "passes": Bench.passes,
    "turns": Bench.turns,
    "hooks": Bench.hooks,
    "children": Bench.children,
    "sleepers": Bench.sleepers,
}


async def run(dsn: str | None, only: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """The figures as JSON and as Markdown."""
    facts: dict[str, dict[str, str]] = {"machine": machine(), "versions": contender.versions()}
    async with open_cluster(dsn) as cluster:
        facts["Postgres"] = await cluster.description()
        bench = Bench(cluster, QUICK if quick else Sizes())
        tables = [
            await section(bench)
            for name, section in SECTIONS.items()
            if any(fnmatch(name, pattern) for pattern in only)
        ]
    body = "\n".join(each.markdown() for each in tables)
    pairs = "\n".join(markdown_of_pairs(head, found) for head, found in facts.items())
    return {
        "json": {"date": now()} | facts | {"tables": [asdict(each) for each in tables]},
        "markdown": f"{body}\n{pairs}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="with few of everything, to see that all works")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"only some of {', '.join(SECTIONS)}")
    parser.add_argument("--dsn", help="a Postgres to use, as superuser, instead of a fresh embedded one")
    parser.add_argument("--name", help="name of the results' files (scale; with --quick or --only, none)")
    options = parser.parse_args()
    name = options.name or (None if options.quick or options.only else "scale")
    measure(options.dsn, options.only or ["*"], quick=options.quick, name=name)


def measure(dsn: str | None, only: Sequence[str], *, quick: bool, name: str | None) -> None:
    """Print the figures, and write them to the results under this name."""
    report = asyncio.run(run(dsn, only, quick=quick))
    print(report["markdown"])
    if name:
        write_results(name, report["markdown"], report["json"])


def _one(topic: str, times: int, **data: Any) -> dict[str, Any]:
    return {"do": "one", "flow": topic, "data": data, "times": times}


def _row(count: int, milliseconds: float, writes: float, rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    each = milliseconds * 1000 / count
    return f"{count:,}", milliseconds, each, writes, each / (rows[0][2] if rows else each)


def _text(cell: Any) -> str:
    return f"{cell:,.2f}" if isinstance(cell, float) else str(cell)


if __name__ == "__main__":
    main()
