"""What a flow writes: transactions, flushes to disk, rows; within one process, with the worker apart, and as the bare commit path.

`python bench/written.py` runs each with one caller and with 50, in turns. A flow of one activity waits twice for the disk whoever
runs it, and the bare commit path writes as many rows as the engine does: what it leaves out is not durable work.
"""

from __future__ import annotations

import argparse
import asyncio
from statistics import median
from typing import TYPE_CHECKING, Any

import asyncpg

import fixtures
from cluster import open_cluster
from contender import Contender, started, versions
from measure import load_request, warm_up
from report import machine, markdown_of_pairs, now, say, table, write_results
from scenarios import BARE, ENGINE, OURS, PLAIN, PROTOTYPE, WORKER, Scenario

if TYPE_CHECKING:
    from cluster import Cluster

TOGETHER = Contender("hotmesh", PLAIN, (OURS,))
APART = Contender("hotmesh, worker apart", PLAIN, (WORKER, ENGINE))
PROTOTYPE_SIDE = Contender("prototype", PROTOTYPE, (BARE,))
SCENARIOS = [
    Scenario(f"{flow}-{callers}", title, flow, callers, contenders)
    for flow, callers, title, contenders in (
        ("one", 1, "one activity, one at a time", (TOGETHER, APART, PROTOTYPE_SIDE)),
        ("one", 50, "one activity, 50 concurrent", (TOGETHER, APART, PROTOTYPE_SIDE)),
        ("five", 50, "five activities in a row, 50 concurrent", (TOGETHER, PROTOTYPE_SIDE)),
    )
]
COUNTED = """
select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as ids, ({flushes})::bigint as flushes,
       pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint as wal_bytes,
       sum(n_tup_ins)::bigint as inserted, sum(n_tup_upd)::bigint as updated, sum(n_tup_del)::bigint as deleted
from pg_stat_user_tables
where schemaname = 'hotmesh' and relname in ('job', 'activity', 'worker_stream', 'engine_stream')
"""
FIGURES = ("p50_ms", "ids", "flushes", "wal_bytes", "inserted", "updated", "deleted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", help="a Postgres to use, as superuser, instead of a fresh embedded one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--name", help="name of the results' files (none)")
    asyncio.run(_compare(parser.parse_args()))


async def _compare(options: argparse.Namespace) -> None:
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    facts = {"machine": machine(), "versions": versions()}
    async with open_cluster(options.dsn) as cluster:
        facts["Postgres"] = await cluster.description()
        for database in (PLAIN, PROTOTYPE):
            say(f"preparing {database}")
            await fixtures.prepare(cluster, database)
        for scenario in SCENARIOS:
            for turn in range(1, options.rounds + 1):
                for contender in scenario.contenders:
                    figures = await _round(cluster, scenario, contender, options.seconds)
                    found.setdefault((scenario.title, contender.label), []).append(figures)
                    say(f"{scenario.name:<8} {turn}/{options.rounds}  {contender.label:<22} {figures}")
        for database in (PLAIN, PROTOTYPE):
            await cluster.drop(database)
    rows = [
        [title, label, *(f"{median(each[name] for each in rounds):,.2f}" for name in FIGURES)]
        for (title, label), rounds in found.items()
    ]
    heads = [
        "",
        "",
        "p50 ms",
        "transactions with an id",
        "flushes of the log",
        "bytes of the log",
        "rows inserted",
        "updated",
        "deleted",
    ]
    markdown = "\n".join(
        [
            table(heads, rows),
            "All but p50 for each flow, medians of the rounds.",
            "",
            *(markdown_of_pairs(*fact) for fact in facts.items()),
        ]
    )
    print(markdown)
    if options.name:
        data = [{"title": title, "side": label, "rounds": rounds} for (title, label), rounds in found.items()]
        write_results(options.name, markdown, {"date": now(), **facts, "figures": data})


async def _round(
    cluster: Cluster, scenario: Scenario, contender: Contender, seconds: float
) -> dict[str, float]:
    """From before the first session to after the last: only then everything is counted."""
    dsn = cluster.dsn(contender.database)
    await cluster.checkpoint()
    before = await _counted(dsn)
    async with started(contender, dsn) as processes:
        await warm_up(processes, scenario)
        [driver] = [process for process in processes if process.drives]
        timing = await driver.ask(load_request(scenario, seconds=seconds), seconds + 120)
    await cluster.commits(contender.database)
    after = await _counted(dsn)
    flows = timing["flows"] + scenario.warm_up
    return {"p50_ms": timing["p50_ms"]} | {
        name: round((after[name] - before[name]) / flows, 3) for name in before
    }


async def _counted(dsn: str) -> dict[str, int]:
    """Ids of transactions, flushes and bytes of the log, and rows written so far."""
    version = (await _ask(dsn, "select current_setting('server_version_num')::integer"))[0]
    flushes = "select sum(fsyncs) from pg_stat_io where object = 'wal'"
    if version < 180_000:
        flushes = "select wal_sync from pg_stat_wal"
    return dict(await _ask(dsn, COUNTED.format(flushes=flushes)))


async def _ask(dsn: str, question: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchrow(question)
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
