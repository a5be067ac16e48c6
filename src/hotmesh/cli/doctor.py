"""`hotmesh doctor`: what is wrong with a mesh, and what to do."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import anyio
import click

from hotmesh.cli.common import connection_option, json_option, namespace_option
from hotmesh.errors import ConnectionFailedError, ConnectionLostError, HotMeshError
from hotmesh.observe.apps import check_app
from hotmesh.observe.doctor.facts import Facts
from hotmesh.observe.doctor.findings import Finding, examine, exit_code
from hotmesh.observe.doctor.reading import read
from hotmesh.observe.explain.text import plural
from hotmesh.observe.observer import observing


@click.command()
@click.option("--app", "app_id", metavar="ID", help="This app only; otherwise all of the namespace.")
@connection_option
@namespace_option
@json_option
def doctor(app_id: str | None, connection: str | None, namespace: str, as_json: bool) -> None:
    """Say what is wrong with a mesh, and what to do."""
    facts: Facts | None = None
    try:
        facts = anyio.run(_facts, connection, namespace, app_id)
        findings = examine(facts)
    except (ConnectionFailedError, ConnectionLostError) as error:
        todo = "see whether Postgres runs, and whether --connection leads to it"
        findings = [Finding("no-connection", "error", str(error), todo)]
    except HotMeshError as error:
        # As every other command: what is wrong is on stderr; a monitor that reads JSON gets that.
        if as_json:
            click.echo(
                json.dumps(
                    {"exit_code": 1, "error": str(error), "findings": []}, indent=2, ensure_ascii=False
                )
            )
            sys.exit(1)
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(_as_dict(facts, findings), indent=2, ensure_ascii=False))
    else:
        _print(facts, findings)
    sys.exit(exit_code(findings))


async def _facts(connection: str | None, namespace: str, app_id: str | None) -> Facts:
    async with observing(connection, namespace, application_name="hotmesh doctor") as observer:
        facts = await read(observer, namespace, app_id)
        if not facts.apps and facts.schema_problem is None:
            await check_app(observer, app_id)
        return facts


def _as_dict(facts: Facts | None, findings: list[Finding]) -> dict[str, Any]:
    told: dict[str, Any] = {"exit_code": exit_code(findings), "findings": [asdict(one) for one in findings]}
    if facts is not None:
        told |= {
            "library": facts.library,
            "postgres": facts.server.version,
            "namespace": facts.namespace,
            "apps": [app.app_id for app in facts.apps],
        }
    return told


def _print(facts: Facts | None, findings: list[Finding]) -> None:
    if facts is not None:
        apps = ", ".join(app.app_id for app in facts.apps) or "none"
        click.echo(
            f"hotmesh {facts.library}, Postgres {facts.server.version}, namespace {facts.namespace}, apps: {apps}"
        )
    for one in findings:
        where = "" if one.app_id is None else f"app {one.app_id}: "
        word = click.style(one.severity, fg="red" if one.severity == "error" else "yellow")
        click.echo(f"{word} {one.code}: {where}{one.what}\n    {one.todo}")
    errors = sum(one.severity == "error" for one in findings)
    told = f"{plural(errors, 'error')}, {plural(len(findings) - errors, 'warning')}"
    click.echo(told if findings else "nothing is wrong")
