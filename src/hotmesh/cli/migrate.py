"""`hotmesh migrate`: the tables of a namespace, by hand or by a role that may."""

from __future__ import annotations

import json

import anyio.to_thread
import click

from hotmesh.cli.common import connection_option, json_option, namespace_option, run
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.migrate import Pending, grant, pending, script
from hotmesh.postgres.migrate import migrate as bring_up_to_date


@click.command()
@click.option(
    "--print", "as_script", is_flag=True, help="Print the SQL for an empty database and exit, without one."
)
@click.option(
    "--dry-run", is_flag=True, help="Print the SQL that is pending on this database, and run nothing."
)
@click.option("--verify", is_flag=True, help="Exit with 1 unless everything is up to date; run nothing.")
@click.option(
    "--grant",
    "roles",
    metavar="ROLE",
    multiple=True,
    help="Let an app run as this role, which does not own the schema; may be given more than once.",
)
@connection_option
@namespace_option
@json_option
@click.pass_context
def migrate(
    context: click.Context,
    as_script: bool,
    dry_run: bool,
    verify: bool,
    roles: tuple[str, ...],
    connection: str | None,
    namespace: str,
    as_json: bool,
) -> None:
    """Bring the tables of a namespace up to date.

    Programs do this by themselves when they start, unless they say migrate="verify"; this command is for those whose
    role may run no DDL. Any number of them may run at once; each migration runs once, in one transaction.

    --grant gives such a role the rights that it needs, and no more. Later migrations give them for what is new.
    """
    if as_script + dry_run + verify > 1:
        raise click.UsageError("--print, --dry-run and --verify exclude each other", ctx=context)
    if verify and roles:
        raise click.UsageError("--verify grants nothing", ctx=context)
    if as_script:
        if as_json:
            raise click.UsageError("--print prints SQL, not JSON", ctx=context)
        click.echo(script(namespace, grant=roles), nl=False)
        return
    looking = dry_run or verify
    found = run(_pending, connection, namespace) if looking else run(_migrate, connection, namespace, roles)
    if as_json:
        click.echo(json.dumps(_as_data(found, namespace, roles, done=not looking)))
    elif dry_run:
        if found or roles:
            click.echo(script(namespace, found, roles), nl=False)
        else:
            click.echo(f"-- {namespace} is up to date")
    elif verify:
        click.echo(
            f"{namespace} lacks {_in_words(found)}" if found else f"{namespace} is up to date",
            err=bool(found),
        )
    else:
        click.echo(f"{namespace}: applied {_in_words(found)}" if found else f"{namespace} was up to date")
        for role in roles:
            click.echo(f"{namespace}: an app may run as {role}")
    context.exit(1 if verify and found else 0)


async def _migrate(connection: str | None, namespace: str, roles: tuple[str, ...]) -> Pending:
    source = await _source(connection)
    found = await bring_up_to_date(source, namespace)
    if roles:
        await grant(source, namespace, roles)
    return found


async def _pending(connection: str | None, namespace: str) -> Pending:
    source = await _source(connection)
    driver = await source.connect()
    try:
        return await pending(driver, namespace)
    finally:
        await source.release(driver)


async def _source(connection: str | None) -> ConnectionSource:
    return await anyio.to_thread.run_sync(ConnectionSource.find, connection)


def _in_words(found: Pending) -> str:
    return ", ".join(_names(found) + (["stored functions"] if found.functions else []))


def _names(found: Pending) -> list[str]:
    return [f"{migration.version:04d}_{migration.name}" for migration in found.migrations]


def _as_data(found: Pending, namespace: str, roles: tuple[str, ...], *, done: bool) -> dict[str, object]:
    what = {"migrations": _names(found), "functions": found.functions}
    data: dict[str, object] = {
        "namespace": namespace,
        "up_to_date": done or not found,
        "applied" if done else "pending": what,
    }
    if done and roles:
        data["granted"] = list(roles)
    return data
