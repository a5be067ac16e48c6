"""`hotmesh dead-letters`: what was given up, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC
from typing import Any, Final

import anyio.to_thread
import click
from rich import box
from rich.table import Table
from rich.text import Text

from hotmesh.cli.common import (
    connection_option,
    json_option,
    listing,
    namespace_option,
    run,
)
from hotmesh.cli.looking import looking, warn_of_unused
from hotmesh.evaluate import system_environment
from hotmesh.observe.apps import check_app
from hotmesh.observe.dead_letters import DeadLetter, list_dead_letters
from hotmesh.observe.observer import Observer
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.runtime.calls.operations import JobOperations
from hotmesh.runtime.definitions.plans import Plans

APPLICATION: Final = "hotmesh dead-letters"
"""How Postgres names the connections of these commands."""

app_option = click.option("--app", "app_id", metavar="ID", required=True, help="The app it belongs to.")


def _ids(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers of dead letters."""
    for text in given:
        if not (text.isascii() and text.isdigit() and int(text)):
            raise click.BadParameter(
                f"{text!r} is not a number of a dead letter: `hotmesh dead-letters list` shows them"
            )
    return tuple(map(int, given))


@click.group("dead-letters")
def dead_letters() -> None:
    """List, requeue or discard what was given up."""


@dead_letters.command("list")
@app_option
@click.option("--topic", help="Of this worker topic only.")
@click.option("--job", "job_id", metavar="ID", help="Of this job only.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most."
)
@connection_option
@namespace_option
@json_option
def list_(
    app_id: str,
    topic: str | None,
    job_id: str | None,
    limit: int,
    connection: str | None,
    namespace: str,
    as_json: bool,
) -> None:
    """List what was given up, the newest first, with the reason."""

    async def read() -> list[DeadLetter]:
        async with looking(connection, namespace, app_id, application_name=APPLICATION) as observer:
            if topic is not None:
                await warn_of_unused(observer, app_id, "work", [topic])
            return await list_dead_letters(observer, app_id, topic, job_id, limit)

    found = run(read)
    if as_json:
        click.echo(json.dumps([_plain(letter) for letter in found], indent=2, ensure_ascii=False))
        return
    listing().print(_listed(found) if found else "no dead letters")


@dead_letters.command()
@click.argument("ids", metavar="ID", callback=_ids, nargs=-1, required=True)
@app_option
@connection_option
@namespace_option
def requeue(ids: tuple[int, ...], app_id: str, connection: str | None, namespace: str) -> None:
    """Put back what was given up; a job that ended by it is live again."""

    async def each() -> None:
        async with _operations(connection, namespace, app_id) as operating:
            for dead_letter_id in ids:
                await operating.requeue(dead_letter_id)
                click.echo(f"requeued {dead_letter_id}")

    run(each)


@dead_letters.command()
@click.argument("ids", metavar="ID", callback=_ids, nargs=-1, required=True)
@app_option
@connection_option
@namespace_option
def discard(ids: tuple[int, ...], app_id: str, connection: str | None, namespace: str) -> None:
    """Remove dead letters for good."""

    async def each() -> None:
        async with _operations(connection, namespace, app_id) as operating:
            for dead_letter_id in ids:
                await operating.discard(dead_letter_id)
                click.echo(f"discarded {dead_letter_id}")

    run(each)


@asynccontextmanager
async def _operations(connection: str | None, namespace: str, app_id: str) -> AsyncIterator[JobOperations]:
    source = await anyio.to_thread.run_sync(
        lambda: ConnectionSource.find(connection, application_name=APPLICATION)
    )
    database = Database(source, namespace, app_id)
    try:
        await check_app(Observer(database), app_id)
        yield JobOperations(database, Plans(database), system_environment())
    finally:
        await database.close()


def _listed(found: list[DeadLetter]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("job", no_wrap=True, min_width=max(len(letter.job_id) for letter in found))
    table.add_column("topic", no_wrap=True)
    table.add_column("given up (UTC)", no_wrap=True, min_width=14)
    table.add_column("reason", overflow="fold")
    for letter in found:
        table.add_row(
            str(letter.id),
            Text(letter.job_id),
            Text(letter.topic),
            Text(f"{letter.dead_at.astimezone(UTC):%m-%d %H:%M:%S}"),
            Text(letter.reason),
        )
    return table


def _plain(letter: DeadLetter) -> dict[str, Any]:
    return {**asdict(letter), "dead_at": letter.dead_at.astimezone(UTC).isoformat()}
