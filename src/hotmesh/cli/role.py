"""`hotmesh role`: logins for workers in untrusted places."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC
from functools import partial
from typing import Any

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
from hotmesh.postgres.logins import roles
from hotmesh.postgres.logins.credentials import WorkerCredential, WorkerRole

role_argument = click.argument("role_name", metavar="ROLE")
password_option = click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from stdin, one line; by default a random one is made.",
)


@click.group()
def role() -> None:
    """Make and end logins for workers in untrusted places.

    The connection must be that of the owner of the schema, who may create roles.
    """


@role.command()
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True)
@click.option("--app", "app_id", metavar="ID", required=True, help="The app whose work it may take.")
@click.option(
    "--role", "role_name", metavar="NAME", help="A name of your own; by default it follows from the topics."
)
@click.option("--replace", is_flag=True, help="Give an existing role these topics, if it has others.")
@click.option("--connection-limit", type=click.IntRange(1), help="Sessions that it may have at once.")
@password_option
@connection_option
@namespace_option
@json_option
def provision(
    topics: tuple[str, ...],
    app_id: str,
    role_name: str | None,
    replace: bool,
    connection_limit: int | None,
    password_stdin: bool,
    connection: str | None,
    namespace: str,
    as_json: bool,
) -> None:
    """Make a login that may take and answer work of these topics, and nothing else.

    Prints its name and password; the password is kept nowhere.
    """
    password = _password(password_stdin)

    async def provide() -> WorkerCredential:
        async with looking(connection, namespace, app_id) as observer:
            await warn_of_unused(observer, app_id, "work", topics)
        return await roles.provision_worker_role(
            connection,
            topics,
            app_id=app_id,
            namespace=namespace,
            password=password,
            role_name=role_name,
            replace=replace,
            connection_limit=connection_limit,
        )

    made = run(provide)
    _show(made, as_json, tell=not password_stdin)


@role.command()
@role_argument
@click.option(
    "--end-sessions", is_flag=True, help="End the sessions that are open: after a password has leaked."
)
@password_option
@connection_option
@namespace_option
@json_option
def rotate(
    role_name: str,
    end_sessions: bool,
    password_stdin: bool,
    connection: str | None,
    namespace: str,
    as_json: bool,
) -> None:
    """Give a login another password, and print it."""
    made = run(
        partial(
            roles.rotate_worker_password,
            connection,
            role_name,
            namespace=namespace,
            new_password=_password(password_stdin),
            end_sessions=end_sessions,
        )
    )
    _show(made, as_json, tell=not password_stdin)


@role.command()
@role_argument
@connection_option
@namespace_option
def revoke(role_name: str, connection: str | None, namespace: str) -> None:
    """End a login: it may not log in any more, and its sessions are ended."""
    run(partial(roles.revoke_worker_role, connection, role_name, namespace=namespace))
    click.echo(f"{role_name} is revoked")


@role.command(name="list")
@click.option("--app", "app_id", metavar="ID", help="Of this app only.")
@connection_option
@namespace_option
@json_option
def list_(app_id: str | None, connection: str | None, namespace: str, as_json: bool) -> None:
    """List the logins of a namespace, revoked ones included, oldest first."""

    async def read() -> list[WorkerRole]:
        if app_id is not None:
            async with looking(connection, namespace, app_id):
                pass
        return await roles.list_worker_roles(connection, namespace=namespace, app_id=app_id)

    found = run(read)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2, default=str))
        return
    listing().print(_listed(found) if found else "no worker logins")


def _password(from_stdin: bool) -> str | None:
    return sys.stdin.readline().rstrip("\n") if from_stdin else None


def _show(made: WorkerCredential, as_json: bool, *, tell: bool) -> None:
    shown: dict[str, Any] = {"role_name": made.role_name}
    if tell:
        shown["password"] = made.password
    if as_json:
        click.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        click.echo(f"{name}: {value}")


def _listed(found: list[WorkerRole]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in ("role", "app", "topics", "created (UTC)", "state", "sessions"):
        table.add_column(name, overflow="fold")
    for one in found:
        state = "revoked" if one.revoked_at is not None else "valid" if one.can_login else "cannot log in"
        table.add_row(
            Text(one.role_name),
            Text(one.app_id),
            Text(", ".join(one.stream_names)),
            f"{one.created_at.astimezone(UTC):%Y-%m-%d %H:%M}",
            state,
            str(one.sessions),
        )
    return table
