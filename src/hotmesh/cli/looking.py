"""How commands look at an app: one that there is, and topics that something uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Literal

import click

from hotmesh.observe.apps import check_app, list_apps, unused
from hotmesh.observe.observer import Observer, observing


@asynccontextmanager
async def looking(
    connection: str | None,
    namespace: str,
    app_id: str | None = None,
    *,
    application_name: str = "hotmesh",
) -> AsyncIterator[Observer]:
    """As `observing`, of an app that there is. Raises AppNotFoundError, which names those that there are."""
    async with observing(connection, namespace, application_name=application_name) as observer:
        await check_app(observer, app_id)
        yield observer


async def warn_of_unused(
    observer: Observer, app_id: str | None, kind: Literal["graph", "work"], topics: Collection[str]
) -> None:
    """Say on stderr which of the topics nothing of the app uses; of all apps, if none is named."""
    apps = await list_apps(observer) if app_id is None else [app_id]
    missing = [dict(await unused(observer, app, kind, topics)) for app in apps]
    for topic in topics:
        if missing and all(topic in one for one in missing):
            near = next((one[topic] for one in missing if one[topic]), "")
            where = "any app here" if app_id is None else f"app {app_id}"
            what = "is started by" if kind == "graph" else "has a worker on"
            hint = f" (did you mean {near}?)" if near else ""
            click.echo(f"Warning: no graph of {where} {what} topic {topic}{hint}", err=True)
