"""`hotmesh demo`: a real flow, on a real database, in a few seconds."""

from __future__ import annotations

import json
import logging
import secrets
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import anyio
import anyio.to_thread
import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from hotmesh.cli.common import connection_option, json_option, namespace_option, run
from hotmesh.cli.demo_report import Report, as_data, show
from hotmesh.demo.orders import APP_ID, Order, expected, orders, outcome
from hotmesh.demo.run import run_orders
from hotmesh.demo.run_functions import run_functions
from hotmesh.durable.meshes import schema_of
from hotmesh.observe.activities import list_activities
from hotmesh.observe.jobs import FieldCount, JobSummary, count_by_fields, count_results, find_jobs
from hotmesh.observe.obligations import count_open, count_open_of_entity
from hotmesh.observe.observer import observing
from hotmesh.postgres import sql
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.migrate import migrate
from hotmesh.postgres.operations import forget_ended_jobs

orders_option = click.option(
    "--orders", "count", type=click.IntRange(1, 1_000_000), default=2_000, show_default=True, help="How many."
)
concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(1, 1_000),
    default=50,
    show_default=True,
    help="Orders under way at once.",
)


@click.group(invoke_without_command=True)
@orders_option
@concurrency_option
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
    if context.invoked_subcommand is not None:
        given = [
            name
            for name in context.params
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]
        if given:
            raise click.UsageError(f"the options of {context.invoked_subcommand} stand behind it")
        return
    console = Console(quiet=as_json)
    placed = orders(count, f"order-{secrets.token_hex(3)}")
    report = run(_run, console, placed, connection, namespace, concurrency, keep)
    if as_json:
        click.echo(json.dumps(as_data(report, concurrency), indent=2))
    else:
        show(console, report, concurrency)
    context.exit(0 if report.accounted_for else 1)


@demo.command("durable", short_help="Run them as durable functions; with --chaos, kill processes meanwhile.")
@orders_option
@concurrency_option
@click.option(
    "--chaos", is_flag=True, help="Host them in processes of their own, and kill one after the other."
)
@connection_option
@click.option(
    "--namespace",
    default="hotmesh-demo",
    show_default=True,
    help="The namespace of the durable functions.",
)
@json_option
@click.pass_context
def demo_durable(
    context: click.Context,
    count: int,
    concurrency: int,
    chaos: bool,
    connection: str | None,
    namespace: str,
    as_json: bool,
) -> None:
    """Run the orders through the same flow, written as durable functions.

    With --chaos they are hosted by three processes, one of which is killed whenever a further share of the orders has
    ended, and replaced. Exits with 1 unless every order ended as the file of orders says it must.
    """
    console = Console(quiet=as_json)
    placed = orders(count, f"order-{secrets.token_hex(3)}")
    logging.getLogger("hotmesh").addHandler(logging.NullHandler())  # what fails is in the table
    report = run(_run_durable, console, placed, connection, namespace, concurrency, chaos)
    if as_json:
        click.echo(json.dumps(as_data(report, concurrency), indent=2))
    else:
        show(console, report, concurrency)
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
        (job,) = await find_jobs(observer, _shown(placed), APP_ID)
        activities = await list_activities(observer, job.generation)
        return Report(
            seen,
            expected(placed),
            _stored(counted),
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


def _quoted(schema: str) -> str:
    return schema if schema.isidentifier() and schema.islower() else sql.quote(schema)


def _sql(job: JobSummary, namespace: str) -> str:
    """What to paste into psql to see the same timeline."""
    schema = _quoted(namespace)
    # The names are our own, and an order's id is that of the file and a hexadecimal number.
    return textwrap.dedent(f"""\
        select a.activity_id, a.type, a.code, a.started_at - j.created_at as at,
               a.ended_at - a.started_at as took, a.output
          from {schema}.job as j
          join {schema}.activity as a using (generation)
         where j.app_id = '{job.app_id}' and j.job_id = '{job.job_id}'
         order by a.started_at;""")  # noqa: S608


async def _run_durable(
    console: Console,
    placed: Sequence[Order],
    connection: str | None,
    namespace: str,
    concurrency: int,
    chaos: bool,
) -> Report:
    schema_of(namespace)
    with nullcontext() if console.quiet else console.status("looking for Postgres"):
        source = await anyio.to_thread.run_sync(ConnectionSource.find, connection)
        await migrate(source, namespace)
        async with observing(source, namespace) as observer:
            postgres = await observer.server_version()
    console.print(f"{len(placed):,} orders, {concurrency} at a time, on Postgres {postgres}")
    with _progress(console) as progress:
        task = progress.add_task("orders", total=len(placed))
        seen, killed = await run_functions(
            placed,
            connection=connection,
            namespace=namespace,
            concurrency=concurrency,
            done=_advance(progress, task),
            chaos=chaos,
        )
    async with observing(source, namespace) as observer:
        counted = await count_results(observer, namespace, placed[0]["run"], "outcome", "reviewed")
        (job,) = await find_jobs(observer, _shown(placed), namespace)
        return Report(
            seen,
            expected(placed),
            _stored(counted),
            await count_open_of_entity(observer, namespace, placed[0]["run"]),
            postgres,
            job,
            await list_activities(observer, job.generation),
            _sql_durable(job, namespace),
            killed if chaos else None,
        )


def _stored(counted: Sequence[FieldCount]) -> Counter[str]:
    stored = Counter[str]()
    for count in counted:
        stored[outcome({"outcome": count.one, "reviewed": count.other == "true"})] += count.number
    return stored


def _sql_durable(job: JobSummary, namespace: str) -> str:
    """What to paste into psql to see what the workflow did."""
    schema = _quoted(namespace)
    return textwrap.dedent(f"""\
        select o.position, o.name, o.status, o.started_at - j.created_at as at,
               o.ended_at - o.started_at as took, o.result
          from {schema}.job as j
          join {schema}.operation as o using (generation)
         where j.app_id = '{job.app_id}' and j.job_id = '{job.job_id}'
         order by o.position;""")  # noqa: S608
