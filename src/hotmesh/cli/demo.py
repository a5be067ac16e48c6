"""`hotmesh demo`: a real flow, on a real database, in a few seconds."""

from __future__ import annotations

import json
import math
import secrets
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.to_thread
import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table

from hotmesh.cli import drawing
from hotmesh.cli.common import connection_option, json_option, namespace_option, run
from hotmesh.demo.orders import APP_ID, Order, expected, orders, outcome
from hotmesh.demo.run import Run, run_orders
from hotmesh.observe.activities import ActivitySummary, list_activities
from hotmesh.observe.jobs import JobSummary, count_by_fields, find_jobs
from hotmesh.observe.obligations import count_open
from hotmesh.observe.observer import observing
from hotmesh.postgres import sql
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.migrate import migrate
from hotmesh.postgres.operations import forget_ended_jobs

ORDER = ("shipped", "shipped after review", "card declined", "out of stock", "refused in review", "invalid")
"""The outcomes, as the table lists them; any other one is below."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run has shown: what the callers saw, what Postgres holds, and what both have to be."""

    run: Run
    expected: Counter[str]
    stored: Counter[str]
    open: int
    """Unfinished orders, and rows that still ask for something to be done."""
    postgres: str
    job: JobSummary
    activities: list[ActivitySummary]
    sql: str

    @property
    def accounted_for(self) -> bool:
        return self.run.outcomes == self.expected == self.stored and self.open == 0


@click.command()
@click.option(
    "--orders", "count", type=click.IntRange(1, 1_000_000), default=2_000, show_default=True, help="How many."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1_000),
    default=50,
    show_default=True,
    help="Orders under way at once.",
)
@click.option("--keep", is_flag=True, help="Keep the orders of earlier runs; else they are removed first.")
@connection_option
@namespace_option
@json_option
@click.pass_context
def demo(
    context: click.Context,
    count: int,
    concurrency: int,
    keep: bool,
    connection: str | None,
    namespace: str,
    as_json: bool,
) -> None:
    """Run orders through a real flow and show what happened.

    Deploys a flow of orders: validate, reserve stock and charge the card in parallel, review the big ones, ship; with
    every way to fail. Prints outcomes, throughput and latency, draws the timeline of one order, and shows the SQL to
    look at it. Exits with 1 unless every order ended as the file of orders says it must.
    """
    console = Console(quiet=as_json)
    placed = orders(count, f"order-{secrets.token_hex(3)}")
    report = run(_run, console, placed, connection, namespace, concurrency, keep)
    if as_json:
        click.echo(json.dumps(_as_data(report, concurrency), indent=2))
    else:
        _print(console, report, concurrency, namespace)
    context.exit(0 if report.accounted_for else 1)


async def _run(
    console: Console,
    placed: Sequence[Order],
    connection: str | None,
    namespace: str,
    concurrency: int,
    keep: bool,
) -> Report:
    with nullcontext() if console.quiet else console.status("looking for Postgres"):
        source = await anyio.to_thread.run_sync(ConnectionSource.find, connection)
        await migrate(source, namespace)
        async with observing(source, namespace) as observer:
            postgres = await observer.server_version()
        if not keep:
            await _forget(source, namespace)
    console.print(f"{len(placed):,} orders, {concurrency} at a time, on Postgres {postgres}")
    with _progress(console) as progress:
        task = progress.add_task("orders", total=len(placed))
        seen = await run_orders(
            placed,
            connection=connection,
            namespace=namespace,
            concurrency=concurrency,
            done=_advance(progress, task),
        )
    async with observing(source, namespace) as observer:
        counted = await count_by_fields(observer, APP_ID, placed[0]["run"], "outcome", "reviewed")
        stored = Counter[str]()
        for count in counted:
            stored[outcome({"outcome": count.one, "reviewed": count.other == "true"})] += count.number
        (job,) = await find_jobs(observer, _shown(placed), APP_ID)
        activities = await list_activities(observer, job.generation)
        return Report(
            seen,
            expected(placed),
            stored,
            await count_open(observer, APP_ID, placed[0]["run"]),
            postgres,
            job,
            activities,
            _sql(job, namespace),
        )


async def _forget(source: ConnectionSource, namespace: str) -> None:
    """Remove the orders of earlier runs."""
    database = Database(source, namespace, APP_ID)
    try:
        await forget_ended_jobs(database)
    finally:
        await database.close()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=console.quiet,
        transient=True,
    )


def _advance(progress: Progress, task: TaskID) -> Callable[[], None]:
    return lambda: progress.advance(task)


def _shown(placed: Sequence[Order]) -> str:
    """The order whose timeline is drawn: one with a review, if there is one."""
    for wanted in ("shipped after review", "shipped"):
        for order in placed:
            if expected([order])[wanted]:
                return str(order["id"])
    return str(placed[0]["id"])


def _sql(job: JobSummary, namespace: str) -> str:
    """What to paste into psql to see the same timeline."""
    schema = namespace if namespace.isidentifier() and namespace.islower() else sql.quote(namespace)
    # The names are our own, and an order's id is that of the file and a hexadecimal number.
    return textwrap.dedent(f"""\
        select a.activity_id, a.type, a.code, a.started_at - j.created_at as at,
               a.ended_at - a.started_at as took, a.output
          from {schema}.job as j
          join {schema}.activity as a using (generation)
         where j.app_id = '{job.app_id}' and j.job_id = '{job.job_id}'
         order by a.started_at;""")  # noqa: S608


# -- what is printed -----------------------------------------------------------------------------------------


def _print(console: Console, report: Report, concurrency: int, namespace: str) -> None:
    run = report.run
    total = sum(run.outcomes.values())
    console.print(_outcomes(report))
    console.print(
        f"[bold]{total / run.seconds:,.0f} orders/s[/bold]: {total:,} in {run.seconds:.2f} s, "
        f"{concurrency} at a time; latencies in milliseconds, from placing an order to its result"
    )
    if report.accounted_for:
        console.print(
            f"[green]all {total:,} orders accounted for[/green]: callers, Postgres and the file of orders agree, "
            "and nothing is left to do"
        )
    else:
        console.print(
            f"[red]not all orders are accounted for[/red]: stored {dict(report.stored)}, still open {report.open}"
        )
    console.print()
    console.print(drawing.headline(report.job))
    console.print(drawing.timeline(report.job, report.activities, datetime.now(UTC)))
    console.print("The same in SQL, for [bold]hotmesh db psql[/bold] or any other client:\n")
    console.print(Syntax(report.sql, "sql", theme="ansi_dark", background_color="default", word_wrap=True))


def _outcomes(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("outcome")
    for name in ("orders", "expected", "p50", "p95", "p99"):
        table.add_column(name, justify="right")
    for name in _names(report):
        latencies = report.run.latencies.get(name, [])
        right = len(latencies) == report.expected[name]
        table.add_row(
            name,
            f"{len(latencies):,}",
            f"[{'dim' if right else 'red'}]{report.expected[name]:,}[/]",
            *_milliseconds(latencies),
        )
    everything = [latency for latencies in report.run.latencies.values() for latency in latencies]
    table.add_section()
    table.add_row(
        "all", f"{len(everything):,}", f"[dim]{report.expected.total():,}[/]", *_milliseconds(everything)
    )
    return table


def _names(report: Report) -> list[str]:
    found = report.run.outcomes.keys() | report.expected.keys()
    return [*(name for name in ORDER if name in found), *sorted(found - set(ORDER))]


def _milliseconds(latencies: Sequence[float]) -> list[str]:
    return [f"{percentile(latencies, share) * 1_000:.1f}" if latencies else "" for share in (0.5, 0.95, 0.99)]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(math.ceil(len(values) * share), 1) - 1]


def _as_data(report: Report, concurrency: int) -> dict[str, Any]:
    everything = [latency for latencies in report.run.latencies.values() for latency in latencies]

    def described(latencies: Sequence[float]) -> dict[str, Any]:
        if not latencies:
            return {"orders": 0}
        return {
            "orders": len(latencies),
            **{
                f"p{share}_ms": round(percentile(latencies, share / 100) * 1_000, 3) for share in (50, 95, 99)
            },
        }

    return {
        "accounted_for": report.accounted_for,
        "postgres": report.postgres,
        "concurrency": concurrency,
        "seconds": round(report.run.seconds, 4),
        "orders_per_second": round(len(everything) / report.run.seconds, 1),
        "all": described(everything),
        "outcomes": {
            name: {**described(report.run.latencies.get(name, [])), "expected": report.expected[name]}
            for name in _names(report)
        },
        "stored": dict(report.stored),
        "open": report.open,
        "job_id": report.job.job_id,
        "sql": report.sql,
    }
