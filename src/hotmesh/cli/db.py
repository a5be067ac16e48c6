"""`hotmesh db`: the embedded Postgres of a data directory, by hand."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click

from hotmesh.errors import HotMeshError
from hotmesh.postgres import local
from hotmesh.postgres.local import LocalServer

STOPPED = 3
"""Exit code of `status` when no server runs; the one that `pg_ctl status` has."""

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="HOTMESH_DATA_DIR",
    show_envvar=True,
    help="The directory of the server's data; by default one per user and Postgres version.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def db() -> None:
    """Start, stop and inspect the embedded Postgres.

    It starts by itself when it is needed; these commands are for looking after it.
    """


@db.command()
@data_dir_option
@json_option
@click.option("--no-sync", is_flag=True, help="For tests: a new cluster never waits for the disk.")
def start(data_dir: Path | None, as_json: bool, no_sync: bool) -> None:
    """Start the server if it does not run, and print its URL."""
    with _reported():
        server = local.ensure_running(data_dir, sync=not no_sync)
    click.echo(json.dumps(_described(server)) if as_json else server.dsn)


@db.command()
@data_dir_option
@json_option
@click.option(
    "--mode",
    type=click.Choice(["smart", "fast", "immediate"]),
    default="fast",
    show_default=True,
    help="Wait for clients to leave, end their sessions, or also skip the checkpoint.",
)
def stop(data_dir: Path | None, as_json: bool, mode: Literal["smart", "fast", "immediate"]) -> None:
    """Stop the server and wait until it has ended."""
    with _reported():
        stopped = local.stop(data_dir, mode)
    if as_json:
        click.echo(json.dumps({"stopped": stopped}))
    else:
        click.echo("stopped" if stopped else "was not running")


@db.command()
@data_dir_option
@json_option
@click.pass_context
def status(context: click.Context, data_dir: Path | None, as_json: bool) -> None:
    """Say whether the server runs, and where. Exits with 3 if it does not."""
    with _reported():
        found = local.status(data_dir)
    fields = {"running": False, "data_dir": str(found.data_dir)}
    if found.server is not None:
        fields = _described(found.server)
    if as_json:
        click.echo(json.dumps(fields))
    else:
        for name, value in fields.items():
            click.echo(f"{name:<11} {_in_words(value)}")
    if not found.running:
        context.exit(STOPPED)


@db.command()
@data_dir_option
def url(data_dir: Path | None) -> None:
    """Print the server's URL, for any client; starts the server if need be."""
    with _reported():
        click.echo(local.ensure_running(data_dir).dsn)


@db.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@data_dir_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(data_dir: Path | None, arguments: tuple[str, ...]) -> None:
    """Open psql on the server, started if need be; ARGUMENTS are psql's own."""
    with _reported():
        server = local.ensure_running(data_dir)
    beside = server.bin_dir / "psql"
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("psql")
    if program is None:
        raise click.ClickException(
            f"there is no psql, neither in {server.bin_dir} nor on PATH: install a Postgres client, "
            f"or use another one with {server.dsn}"
        )
    # Options come before the URL: psql on some systems stops looking for them at the first name.
    os.execv(program, [program, *arguments, f"--dbname={server.dsn}"])  # noqa: S606


def _described(server: LocalServer) -> dict[str, Any]:
    return {
        "running": True,
        "url": server.dsn,
        "version": server.version,
        "pid": server.pid,
        "started_at": server.started_at.isoformat(),
        "data_dir": str(server.data_dir),
        "log": str(server.log),
        "programs": str(server.bin_dir),
    }


def _in_words(value: object) -> object:
    return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


@contextmanager
def _reported() -> Iterator[None]:
    """What cannot be done is one message on stderr and exit code 1, without a traceback."""
    try:
        yield
    except HotMeshError as error:
        raise click.ClickException(str(error)) from error
