"""What a snapshot that is held elsewhere costs: flows run while a session stands idle in its transaction.

`python bench/held.py` runs the same flows again and again under such a snapshot, and shows how each portion of them differs from
the first: no row that they delete is removed. `--free` runs them without it. Beside the time of Postgres stands what the figures
are made of: buffers by index and table, and what a claim and the looks for what is next have to read afterwards.
`HOTMESH_POSTGRES_BIN` names another Postgres, `--against` another checkout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg

import contender
import fixtures
import flows
from cluster import cpu_seconds, open_cluster
from contender import Contender, started
from report import machine, markdown_of_pairs, now, say, table, write_results
from scenarios import ENGINE, OURS, WORKER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cluster import Cluster

DATABASE = "bench_held"
TIMEOUT = 900
CALLERS = 50
ARRANGEMENTS: Final = {"together": (OURS,), "apart": (ENGINE, WORKER)}
HEADS: Final = (
    "flows so far",
    "flows/s",
    "Postgres ms/flow",
    "application ms/flow",
    "buffers/flow",
    "most of them",
    "buffers of a claim",
    "of the look for work",
    "for due jobs",
    "for events",
)

BUFFERS = """
select s.indexrelname::text as name, (s.idx_blks_hit + s.idx_blks_read)::bigint as buffers
  from pg_statio_all_indexes as s where s.schemaname = 'hotmesh'
 union all
select s.relname::text, (s.heap_blks_hit + s.heap_blks_read)::bigint
  from pg_statio_all_tables as s where s.schemaname = 'hotmesh'
"""

LOOKS: Final = {
    "claim": "select * from hotmesh.claim_work('{app}', 'bench', '{{{topic}}}', '{{100}}', 1, null, '{{null}}', '{{null}}')",
    "next work": "select hotmesh.next_work_at('{app}', '{{{topic}}}', '{{null}}', '{{null}}')",
    "due jobs": "select * from hotmesh.lock_due_jobs('{app}', 100)",
    "next event": "select hotmesh.next_event_at('{app}')",
}
"""As a process that has just started asks: it knows nothing of what has been looked at before."""


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, dict[str, str]] = {"machine": machine(), "versions": contender.versions()}
    tables: dict[str, list[list[Any]]] = {}
    async with open_cluster(options.dsn) as cluster:
        facts["Postgres"] = await cluster.description()
        for flow in options.flow:
            for name in options.arrangement:
                label = f"{flow}, {name}, {'no snapshot held' if options.free else 'a snapshot held'}"
                tables[label] = await _portions(cluster, flow, name, label, options)
        await cluster.drop(DATABASE)
    body = "\n".join(f"### {label}\n\n{table(HEADS, rows)}" for label, rows in tables.items())
    pairs = "\n".join(markdown_of_pairs(head, found) for head, found in facts.items())
    return {
        "json": {"date": now()} | facts | {"heads": HEADS, "tables": tables},
        "markdown": f"{body}\n{pairs}",
    }


async def _portions(
    cluster: Cluster, flow: str, name: str, label: str, options: argparse.Namespace
) -> list[list[Any]]:
    checkout = options.against
    await fixtures.prepare(cluster, DATABASE, checkout=checkout)
    processes = tuple(replace(one, checkout=checkout) for one in ARRANGEMENTS[name])
    postgres = await cluster.postmaster()
    rows = []
    async with (
        started(Contender(name, DATABASE, processes), cluster.dsn(DATABASE)) as running,
        _connected(cluster) as watching,
        _connected(cluster) as holder,
    ):
        await running[0].ask(_load(flow, 500), TIMEOUT)
        if not options.free:
            await holder.execute("begin isolation level repeatable read; select 1 from hotmesh.app")
        for number in range(1, options.portions + 1):
            buffers = await _buffers(watching)
            server = cpu_seconds(postgres) if postgres else 0.0
            ours = sum(one.cpu_seconds() for one in running)
            timing = await running[0].ask(_load(flow, options.portion), TIMEOUT)
            server = (cpu_seconds(postgres) if postgres else 0.0) - server
            ours = sum(one.cpu_seconds() for one in running) - ours
            await asyncio.sleep(1.5)  # until all sessions have told what they read
            spent = {key: value - buffers.get(key, 0) for key, value in (await _buffers(watching)).items()}
            most = sorted(spent, key=spent.__getitem__, reverse=True)[:3]
            looks = [await _look(watching, query) for query in LOOKS.values()]
            rows.append(
                [
                    f"{number * options.portion:,}",
                    f"{timing['flows'] / timing['seconds']:,.0f}",
                    f"{server * 1000 / options.portion:.3f}",
                    f"{ours * 1000 / options.portion:.3f}",
                    f"{sum(spent.values()) / options.portion:,.0f}",
                    ", ".join(f"{key} {spent[key] / options.portion:,.0f}" for key in most),
                    *looks,
                ]
            )
            say(f"{label}: {rows[-1]}")
    return rows


async def _buffers(connection: asyncpg.Connection) -> dict[str, int]:
    return {row["name"]: row["buffers"] for row in await connection.fetch(BUFFERS)}


async def _look(connection: asyncpg.Connection, query: str) -> str:
    """Buffers and milliseconds of one look at the queues, all of which are empty."""
    asked = query.format(app=flows.APP, topic=flows.STEP)
    found: list[dict[str, Any]] = []
    for _ in range(2):
        transaction = connection.transaction()
        await transaction.start()
        try:
            found = json.loads(
                await connection.fetchval(f"explain (analyze, buffers, format json) {asked}", timeout=TIMEOUT)
            )
        finally:
            await transaction.rollback()
    plan = found[0]["Plan"]
    return f"{plan['Shared Hit Blocks'] + plan['Shared Read Blocks']:,} ({found[0]['Execution Time']:.1f} ms)"


def _load(flow: str, count: int) -> dict[str, Any]:
    return {"do": "load", "flow": flow, "concurrency": CALLERS, "flows": count, "seconds": None}


@asynccontextmanager
async def _connected(cluster: Cluster) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(cluster.dsn(DATABASE), server_settings={"application_name": "bench"})
    try:
        yield connection
    finally:
        await connection.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flow", action="append", choices=["one", "five"], help="one and five activities")
    parser.add_argument("--arrangement", action="append", choices=list(ARRANGEMENTS), help="both of them")
    parser.add_argument("--portion", type=int, default=10_000, help="flows in each portion")
    parser.add_argument("--portions", type=int, default=6)
    parser.add_argument("--free", action="store_true", help="hold no snapshot")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="the code of another checkout")
    parser.add_argument("--dsn", help="a Postgres to use, as superuser, instead of a fresh embedded one")
    parser.add_argument("--name", help="write the results under this name")
    options = parser.parse_args(arguments)
    options.flow = options.flow or ["one", "five"]
    options.arrangement = options.arrangement or list(ARRANGEMENTS)
    options.against = options.against and options.against.resolve()
    report = asyncio.run(measure(options))
    print(report["markdown"])
    if options.name:
        write_results(options.name, report["markdown"], report["json"])


if __name__ == "__main__":
    main()
