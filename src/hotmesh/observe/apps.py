"""The apps of a namespace, and what is deployed of one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Literal

from hotmesh.core.definition.manifest import app_from_json
from hotmesh.core.plan.compile import Plan, compile_app
from hotmesh.errors import AppNotFoundError, VersionNotFoundError
from hotmesh.nearest import nearest
from hotmesh.observe.observer import Observer

PlanOf = Callable[[str], Awaitable[Plan]]
"""The plan of a version of an app. Raises VersionNotFoundError."""


async def list_apps(observer: Observer) -> list[str]:
    """The ids of the apps, in order."""
    return [row["app_id"] for row in await observer.rows("list_apps")]


async def check_app(observer: Observer, app_id: str | None) -> None:
    """Raise AppNotFoundError, which names those that there are, for an app of which nothing was ever deployed."""
    if app_id is None:
        return
    apps = await list_apps(observer)
    if app_id not in apps:
        raise AppNotFoundError(app_id, apps, deployed=False)


async def unused(
    observer: Observer, app_id: str, kind: Literal["graph", "work"], topics: Collection[str]
) -> list[tuple[str, str]]:
    """Those of the topics that nothing of the app uses, each with one that it may have been meant for, or with nothing.

    Of `work`: that of worker activities, queued work and dead letters; of `graph`: what starts graphs. Where a graph
    computes such topics, any may be used.
    """
    rows = await observer.rows("app_topics", app_id, kind)
    used = [row["topic"] for row in rows]
    if any(topic.startswith("{") for topic in used):
        return []
    return [(topic, nearest(topic, used) or "") for topic in topics if topic not in used]


def deployed(observer: Observer, app_id: str) -> PlanOf:
    """The plans of an app for those who keep none: read and compiled each time that one is asked for."""
    return partial(_deployed, observer, app_id)


async def _deployed(observer: Observer, app_id: str, version: str) -> Plan:
    row = await observer.row("stored_graph", app_id, version)
    if row is None:
        there = [row["version"] for row in await observer.rows("checksums", app_id)]
        raise VersionNotFoundError(app_id, version, there)
    return compile_app(app_from_json(json.loads(row["graph"])))
