"""Prepares the databases: an empty one for each side, and our own with many jobs in its tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg

import scenarios
from contender import BENCH, Contender, Process, started

if TYPE_CHECKING:
    from pathlib import Path

    from cluster import Cluster

SCHEMA = "hotmesh"
PROTOTYPE_SQL = BENCH / "prototype.sql"
FILL_TIMEOUT = 1800
TEMPLATE_JOBS = 1_000

_DEPLOY = Process("side_hotmesh.py", ("deploy",))
_HOST = Process("side_durable.py", ("host",))


async def prepare(
    cluster: Cluster, database: str, *, scale: float = 1.0, checkout: Path | None = None
) -> None:
    """Make the database afresh; `scale` shortens the wait for a table to fill. `checkout`: for the code of that."""
    await cluster.recreate(database)
    if database == scenarios.DBOS:
        async with started(
            Contender("deploy", database, (scenarios.dbos("threads"),)), cluster.dsn(database)
        ):
            return
    functions = database in {scenarios.FUNCTIONS, scenarios.FUNCTIONS_BEFORE}
    deploys = replace(_HOST if functions else _DEPLOY, checkout=checkout)
    async with started(Contender("deploy", database, (deploys,)), cluster.dsn(database)) as [mesh]:
        if database == scenarios.OPEN:
            jobs = int(scenarios.OPEN_JOBS * scale)
            await mesh.ask({"do": "fill", "flow": "open", "jobs": jobs}, FILL_TIMEOUT)
    if database == scenarios.PROTOTYPE:
        await cluster.execute(database, PROTOTYPE_SQL.read_text())
    if database == scenarios.FINISHED:
        await finish_jobs(cluster, database, int(scenarios.FINISHED_JOBS * scale))


async def finish_jobs(cluster: Cluster, database: str, jobs: int) -> None:
    """Run some real jobs that are kept, then copy their rows under new ids."""
    contender = Contender("fill", database, (scenarios.OURS,))
    async with started(contender, cluster.dsn(database)) as [mesh]:
        load = {"do": "load", "flow": "kept", "concurrency": 50, "flows": TEMPLATE_JOBS, "seconds": None}
        await mesh.ask(load, FILL_TIMEOUT)
    connection = await asyncpg.connect(cluster.dsn(database))
    try:
        await _multiply(connection, jobs // TEMPLATE_JOBS - 1)
        await connection.execute("vacuum analyze", timeout=FILL_TIMEOUT)
    finally:
        await connection.close()


async def _multiply(connection: asyncpg.Connection, copies: int) -> None:
    """Copy every row that belongs to a job, in all tables, under another job id and generation for each copy."""
    columns_of: dict[str, list[str]] = {}
    for row in await connection.fetch(_COLUMNS, SCHEMA):
        columns_of.setdefault(row["table_name"], []).append(row["column_name"])

    for name, columns in columns_of.items():
        listed = ", ".join(f'"{column}"' for column in columns)
        chosen = ", ".join(_COPIED.get(column, f'"{column}"') for column in columns)
        await connection.execute(
            f'insert into "{SCHEMA}"."{name}" ({listed}) '
            f'select {chosen} from generate_series(1, {copies}) as copy, "{SCHEMA}"."{name}"',
            timeout=FILL_TIMEOUT,
        )


# what makes a copy another job; both are the same in all rows of one copy
_COPIED = {
    "job_id": "job_id || '-' || copy",
    "generation": "md5(generation::text || copy)::uuid",
}

# the tables whose rows belong to a job, without the columns that Postgres fills by itself
_COLUMNS = """
select c.table_name, c.column_name
from information_schema.columns as c
join information_schema.tables as t using (table_schema, table_name)
where c.table_schema = $1
  and t.table_type = 'BASE TABLE'
  and c.is_identity = 'NO'
  and c.is_generated = 'NEVER'
  and exists (
      select from information_schema.columns as k
      where (k.table_schema, k.table_name, k.column_name) = (c.table_schema, c.table_name, 'generation')
  )
order by c.table_name, c.ordinal_position
"""
