"""`hotmesh move`: a namespace to another Postgres, while it works."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import anyio
import click

from hotmesh.cli.common import json_option, namespace_option, run
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.moving import Move, MoveError


@click.group()
def move() -> None:
    """Move a namespace to another Postgres, while it works.

    begin, wait until status says that it can be finished, finish. Both roles own the tables and may replicate; the old server has
    wal_level = logical. Until finish, cancel gives it up.
    """


def _places(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        json_option,
        namespace_option,
        click.option(
            "--to", "target", metavar="URL", required=True, help="The new database, as postgresql://…"
        ),
        click.option(
            "--from", "source", metavar="URL", required=True, help="The old database, as postgresql://…"
        ),
    ):
        command = option(command)
    return command


@move.command()
@_places
@click.option(
    "--reach",
    metavar="CONNINFO",
    help="How the new server finds the old database; by default as --from says. It is kept in the new database's catalog.",
)
def begin(source: str, target: str, namespace: str, as_json: bool, reach: str | None) -> None:
    """Make the tables at the new place, and start to copy."""
    run(_move(source, target, namespace).begin, reach or source)
    _say({"begun": True}, "the copy has begun: see `hotmesh move status`", as_json)


@move.command()
@_places
def status(source: str, target: str, namespace: str, as_json: bool) -> None:
    """Say how far the copy is."""
    found = run(_move(source, target, namespace).progress)
    behind = "nothing is copied" if found.behind is None else f"{found.behind:,} bytes behind"
    words = f"{found.copied} of {found.tables} tables, {behind}: {'can be finished' if found.close else 'not yet'}"
    _say(asdict(found) | {"close": found.close}, words, as_json)


@move.command()
@_places
@click.option(
    "--switch",
    metavar="COMMAND",
    help="Run this when the new place is open, before sessions at the old one are ended: it makes the address of the mesh lead there.",
)
def finish(source: str, target: str, namespace: str, as_json: bool, switch: str | None) -> None:
    """Close the old place for good, and open the new one."""
    switched = None if switch is None else _command(switch)
    stop = run(_move(source, target, namespace).finish, switched)
    _say({"stopped": round(stop, 3)}, f"moved; for {stop:.2f} seconds nothing could be written", as_json)


@move.command()
@_places
def cancel(source: str, target: str, namespace: str, as_json: bool) -> None:
    """Give it up: drop the copy, and let the old place go on."""
    run(_move(source, target, namespace).cancel)
    _say({"cancelled": True}, "cancelled: the old place goes on", as_json)


def _move(source: str, target: str, namespace: str) -> Move:
    return Move(ConnectionSource(source, origin="--from"), ConnectionSource(target, origin="--to"), namespace)


def _command(switch: str) -> Callable[[], Any]:
    async def switched() -> None:
        done = await anyio.run_process(shlex.split(switch), check=False)
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()
            raise MoveError(
                f"the namespace has been moved, but {switch!r} failed with {done.returncode}: {words}; make the "
                "address lead to the new place, and finish again, which ends the sessions at the old one"
            )

    return switched


def _say(data: dict[str, Any], words: str, as_json: bool) -> None:
    click.echo(json.dumps(data) if as_json else words)
