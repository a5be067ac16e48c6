"""What statements read when the tables are full: millions of finished jobs, half a million open ones, a long queue of work.

`python bench/growth.py` runs flows of one and of five activities, copies their rows by SQL until there are as many, and asks of each
statement that jobs need how many buffers it takes: those of engines and workers while flows run, under auto_explain, the largest of
each kind but for a session's first, which is planned; and the looks of upkeep by `explain (analyze, buffers)`. `HOTMESH_POSTGRES_BIN` names another Postgres.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, Final

import asyncpg

import contender
import fixtures
import flows
from cluster import open_cluster
from contender import Contender, started
from report import machine, markdown_of_pairs, now, say, table, write_results
from scenarios import ENGINE, OURS, WORKER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cluster import Cluster

DATABASE = "bench_growth"
TIMEOUT = 900
CALLERS = 50
LIMIT: Final = 1_500
"""Buffers that a statement of the hot path may take."""

OPEN: Final = """
insert into hotmesh.job (app_id, job_id, generation, version, topic, seq, token, status, created_at, updated_at)
select '{app}', 'open-' || i, gen_random_uuid(), '1', 'one', 1, 0, 1, now(), now() from generate_series(1, {count}) as i;
insert into hotmesh.worker_stream (app_id, topic, generation, activity_id, dimension, job_id, workflow_name, visible_at, created_at)
select j.app_id, 'bench.queued', j.generation, 'a', '{{0,0}}', j.job_id, 'name', now(), now()
  from hotmesh.job as j where j.status > 0;
insert into hotmesh.timer (app_id, job_id, generation, activity_id, dimension, due_at, set_at)
select j.app_id, j.job_id, j.generation, 'b', '{{0,0}}', now() + interval '1 day', now() from hotmesh.job as j where j.status > 0;
insert into hotmesh.wait (app_id, job_id, generation, activity_id, dimension, topic, key, created_at)
select j.app_id, j.job_id, j.generation, 'c', '{{0,0}}', 'bench.signal', j.job_id, now() from hotmesh.job as j where j.status > 0;
"""

LOOKS: Final = {
    "claim_work, 100 of 0.5 M queued": "select * from hotmesh.claim_work('{app}', 'bench', '{{bench.queued}}', '{{100}}', 1)",
    "claim_work, a name that is not there": "select * from hotmesh.claim_work('{app}', 'bench', '{{bench.queued}}', '{{100}}', 1, null, '{{absent}}', '{{null}}')",
    "next_work_at": "select hotmesh.next_work_at('{app}', '{{bench.queued}}', '{{null}}', '{{null}}', null, 1)",
    "next_work_at, a name that is not there": "select hotmesh.next_work_at('{app}', '{{bench.queued}}', '{{absent}}', '{{null}}', null, 1)",
    "lock_due_jobs": "select * from hotmesh.lock_due_jobs('{app}', 100)",
    "next_event_at": "select hotmesh.next_event_at('{app}')",
    "send_signal to a waiting job": "select hotmesh.send_signal('{app}', 'bench.signal', '{{open-77}}', '{{}}', 'success', 200, 600, null)",
    "free_expired_ids": "select hotmesh.free_expired_ids('{app}', '{{open-1}}')",
    "retention, nothing to delete": "select hotmesh.prune_jobs('{app}', 60, null, false, 1000)",
    "prune_signals": "select hotmesh.prune_signals('{app}', 1000)",
    "prune_messages": "select hotmesh.prune_messages('{app}', 'engine', 60, 1000)",
}
"""As a process that has just started asks: it knows nothing of what has been looked at before."""

UPKEEP: Final = {
    "strip_jobs, a batch of 1,000": "select * from hotmesh.strip_jobs('{app}', null, false, 1000)",
    "prune_jobs, a batch of 1,000": "select hotmesh.prune_jobs('{app}', -864000000, null, false, 1000)",
}
"""No part of the hot path: what they read is in proportion to what they delete."""


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, dict[str, str]] = {"machine": machine(), "versions": contender.versions()}
    async with open_cluster(options.dsn) as cluster:
        facts["Postgres"] = await cluster.description()
        await fixtures.prepare(cluster, DATABASE)
        await fixtures.finish_jobs(cluster, DATABASE, options.jobs)
        say(f"{options.jobs:,} finished jobs")
        await cluster.execute(DATABASE, OPEN.format(app=flows.APP, count=options.open))
        await cluster.execute(DATABASE, "vacuum analyze")  # as autovacuum does
        sizes = await _sizes(cluster)
        hot = await _under_load(cluster, options)
        looks = [await _look(cluster, name, LOOKS[name]) for name in LOOKS]
        upkeep = [await _look(cluster, name, UPKEEP[name]) for name in UPKEEP]
        await cluster.drop(DATABASE)
    over = [row[0] for row in (*hot, *looks) if row[1] > LIMIT]
    parts = {
        "statements while flows run, the largest of each kind": (
            ("statement", "buffers", "calls", "buffers of all calls"),
            hot,
        ),
        "looks of a process that has just started": (("statement", "buffers", "ms"), looks),
        "batches of upkeep": (("statement", "buffers", "ms"), upkeep),
        "tables": (("table", "rows", "MB", "MB with indexes"), sizes),
    }
    body = "\n".join(
        f"### {head}\n\n{table(heads, [[f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in row] for row in rows])}"
        for head, (heads, rows) in parts.items()
    )
    verdict = f"more than {LIMIT:,} buffers: {', '.join(over) or 'no statement of the hot path'}\n"
    pairs = "\n".join(markdown_of_pairs(head, found) for head, found in facts.items())
    return {
        "json": {"date": now()}
        | facts
        | {"over": over, "parts": {head: rows for head, (_, rows) in parts.items()}},
        "markdown": f"{verdict}\n{body}\n{pairs}",
    }


EXPLAIN: Final = {
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "log",
}


async def _under_load(cluster: Cluster, options: argparse.Namespace) -> list[list[Any]]:
    """The largest of each kind of statement that engines and workers run, together and apart."""
    log = await _log(cluster)
    most: dict[str, list[Any]] = {}
    await cluster.execute(
        "postgres",
        f"alter database {DATABASE} set session_preload_libraries = 'auto_explain';"
        + "".join(f"alter database {DATABASE} set {name} = '{value}';" for name, value in EXPLAIN.items()),
    )
    for where, processes in {"together": (OURS,), "worker apart": (ENGINE, WORKER)}.items():
        began = log.stat().st_size
        async with started(Contender("growth", DATABASE, processes), cluster.dsn(DATABASE)) as running:
            for flow in ("one", "five"):
                load = {
                    "do": "load",
                    "flow": flow,
                    "concurrency": CALLERS,
                    "flows": options.flows,
                    "seconds": None,
                }
                await running[0].ask(load, TIMEOUT)
        with log.open("rb") as file:
            file.seek(began)
            _largest(file.read().decode(errors="replace"), where, most)
    await cluster.execute("postgres", f"alter database {DATABASE} reset all")
    return sorted(most.values(), key=lambda row: -row[1])


def _largest(text: str, where: str, most: dict[str, list[Any]]) -> None:
    planned: set[tuple[str, str | None]] = set()
    for found in _PLAN.finditer(text):
        plan = json.loads(found[2].replace("\n\t", "\n"))
        name = _name(plan["Query Text"])
        if (found[1], name) not in planned:
            planned.add((found[1], name))  # a session's first call reads the catalog as well, to plan it
            continue
        read = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        if name:
            row = most.setdefault(f"{name}, {where}", [f"{name}, {where}", 0, 0, 0])
            row[1:] = [max(row[1], read), row[2] + 1, row[3] + read]


_PLAN: Final = re.compile(r"\[(\d+)\][^\n]*plan:\n\t(\{.*?\n\t\})", re.DOTALL)


def _name(statement: str) -> str | None:
    """The function that is called, or the query by its own first comment; nothing of the bench's own."""
    found = re.match(r"\s*(?:--\s*(\w+):|select (?:\* from )?\"?\w+\"?\.(\w+)\()", statement)
    return (found[1] or found[2]) if found else None


async def _log(cluster: Cluster) -> Path:
    directory = await cluster.data_directory()
    if directory is None:
        raise SystemExit("Postgres is not on this machine: its log cannot be read")
    logs = [path for path in (*directory.parent.glob("*.log"), *directory.glob("**/*.log")) if path.is_file()]
    return max(logs, key=lambda path: path.stat().st_mtime)


async def _look(cluster: Cluster, name: str, query: str) -> list[Any]:
    connection = await asyncpg.connect(cluster.dsn(DATABASE))
    try:
        found: list[dict[str, Any]] = []
        for _ in range(2):
            transaction = connection.transaction()
            await transaction.start()
            asked = query.format(app=flows.APP)
            found = json.loads(
                await connection.fetchval(f"explain (analyze, buffers, format json) {asked}", timeout=TIMEOUT)
            )
            await transaction.rollback()
    finally:
        await connection.close()
    plan = found[0]["Plan"]
    row = [name, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], f"{found[0]['Execution Time']:.1f}"]
    say(str(row))
    return row


async def _sizes(cluster: Cluster) -> list[list[Any]]:
    connection = await asyncpg.connect(cluster.dsn(DATABASE))
    try:
        rows = await connection.fetch(
            "select relname, greatest(reltuples, 0)::bigint as count, pg_relation_size(oid) / 1048576 as own, "
            "pg_total_relation_size(oid) / 1048576 as whole from pg_class "
            "where relnamespace = 'hotmesh'::regnamespace and relkind in ('r', 'p') and reltuples > 10000 order by whole desc"
        )
    finally:
        await connection.close()
    return [list(row.values()) for row in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=4_000_000, help="finished jobs in the tables")
    parser.add_argument(
        "--open", type=int, default=500_000, help="open jobs, each with work, a timer and a wait"
    )
    parser.add_argument("--flows", type=int, default=2_000, help="flows of each kind that run")
    parser.add_argument("--dsn", help="a Postgres to use, as superuser, instead of a fresh embedded one")
    parser.add_argument("--name", help="write the results under this name")
    options = parser.parse_args(arguments)
    report = asyncio.run(measure(options))
    print(report["markdown"])
    if options.name:
        write_results(options.name, report["markdown"], report["json"])
    if report["json"]["over"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
