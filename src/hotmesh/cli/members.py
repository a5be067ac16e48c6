"""`hotmesh members`, `throttle`, `pause` and `resume`: who is there, and how fast they may go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click
from rich import box
from rich.table import Table
from rich.text import Text

from hotmesh.cli import drawing
from hotmesh.cli.common import (
    connection_option,
    json_option,
    listing,
    namespace_option,
    run,
)
from hotmesh.cli.looking import looking, warn_of_unused
from hotmesh.enums import PAUSED
from hotmesh.errors import ConfigError
from hotmesh.mesh import HotMesh
from hotmesh.observe.apps import list_apps
from hotmesh.runtime.members.messages import Scope
from hotmesh.runtime.members.profile import QuorumProfile

app_option = click.option("--app", "app_id", metavar="ID", help="The app; needed if there are several.")


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say whom a rate is for."""

    @click.option("--topic", help="The workers of this topic only.")
    @click.option("--guid", help="This instance only, as long as it lives.")
    @click.option(
        "--scope",
        type=click.Choice(["all", "engines", "workers"]),
        default="all",
        show_default=True,
        help="Engines, workers, or both.",
    )
    @app_option
    @connection_option
    @namespace_option
    @wraps(command)
    def with_target(**options: Any) -> Any:
        return command(**options)

    return with_target


@click.command()
@click.option(
    "--delay",
    type=click.FloatRange(0, 60),
    default=1.0,
    show_default=True,
    help="Seconds to wait for members that are there but have not answered yet.",
)
@app_option
@connection_option
@namespace_option
@json_option
def members(delay: float, app_id: str | None, connection: str | None, namespace: str, as_json: bool) -> None:
    """List the engines and workers that are there."""
    found = run(_roll_call, connection, namespace, app_id, delay)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    listing().print(_listed(found) if found else "no members")


@click.command(context_settings={"ignore_unknown_options": True})  # -1 is no option
@click.argument("rate", metavar="MILLISECONDS", type=int)
@target_options
def throttle(rate: int, **target: Any) -> None:
    """Let each engine and worker start at most one message per so many milliseconds; 0 is no limit, -1 a pause."""
    click.echo(f"{run(_throttle, rate, target)}: {_words(rate)}")


@click.command()
@target_options
def pause(**target: Any) -> None:
    """Let engines and workers start nothing new, until they are resumed."""
    click.echo(f"{run(_throttle, PAUSED, target)}: {_words(PAUSED)}")


@click.command()
@target_options
def resume(**target: Any) -> None:
    """Lift a pause, or any other throttle."""
    click.echo(f"{run(_throttle, 0, target)}: {_words(0)}")


async def _roll_call(
    connection: str | None, namespace: str, app_id: str | None, delay: float
) -> list[QuorumProfile]:
    async with _member(connection, namespace, await _app(connection, namespace, app_id)) as mesh:
        found = await mesh.roll_call(delay)
    return sorted(found, key=lambda profile: (profile.engine_id, profile.stream))


async def _throttle(rate: int, target: dict[str, Any]) -> str:
    guid: str | None = target["guid"]
    topic: str | None = target["topic"]
    scope: Scope = target["scope"]
    app_id = await _app(target["connection"], target["namespace"], target["app_id"], topic)
    async with _member(target["connection"], target["namespace"], app_id) as mesh:
        if not await mesh.throttle(rate, guid=guid, topic=topic, scope=scope):
            raise ConfigError(f"no member answers to the guid {guid}: `hotmesh members` shows who is there")
    who: str = "engines and workers" if scope == "all" else scope
    if topic is not None:
        who = f"workers of {topic}"
    return who if guid is None else f"{who} of {guid}"


def _words(rate: int) -> str:
    if rate == PAUSED:
        return "paused"
    return f"one message per {rate} ms" if rate else "no limit"


@asynccontextmanager
async def _member(connection: str | None, namespace: str, app_id: str) -> AsyncIterator[HotMesh]:
    """A member without an engine, that takes no part in anything else. Of what it would warn the command itself warns."""
    async with HotMesh.init(
        app_id, connection=connection, namespace=namespace, engine=False, migrate="verify", log_level="error"
    ) as mesh:
        yield mesh


async def _app(connection: str | None, namespace: str, app_id: str | None, topic: str | None = None) -> str:
    """The app that is meant: the one that is named, if there is such a one, or the only one."""
    async with looking(connection, namespace, app_id) as observer:
        apps = [app_id] if app_id is not None else await list_apps(observer)
        if len(apps) == 1 and topic is not None:
            await warn_of_unused(observer, apps[0], "work", [topic])
    if not apps:
        raise ConfigError("nothing was ever deployed in this namespace: say which app with --app")
    if len(apps) > 1:
        raise ConfigError(f"there are several apps: say which with --app ({', '.join(apps)})")
    return apps[0]


def _listed(found: list[QuorumProfile]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("member", no_wrap=True, min_width=max(len(profile.engine_id) for profile in found))
    table.add_column("does", no_wrap=True)
    for name in ("queued", "done", "failures"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("rate", no_wrap=True)
    table.add_column("up", justify="right", no_wrap=True)
    table.add_column("memory free", justify="right", no_wrap=True)
    for profile in found:
        topic = profile.get("worker_topic")
        duress = profile.get("duress_level", "healthy")
        rate = _words(profile.throttle) if profile.throttle else ""
        table.add_row(
            Text(profile.engine_id),
            Text("engine" if topic is None else f"worker {topic}"),
            str(profile.stream_depth),
            str(sum(profile.counts.values())),
            str(profile.error_count),
            Text(rate if duress == "healthy" else f"{rate} ({duress} duress)".strip()),
            drawing.duration((_moment(profile.timestamp) - _moment(profile.inited)).total_seconds()),
            profile.system["FreeMemoryGB"],
        )
    return table


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d%H%M%S.%f").replace(tzinfo=UTC)
