"""The apps of a namespace, and what is deployed of one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial

from hotmesh.core.definition.manifest import app_from_json
from hotmesh.core.plan.compile import Plan, compile_app
from hotmesh.errors import VersionNotFoundError
from hotmesh.observe.observer import Observer

PlanOf = Callable[[str], Awaitable[Plan]]
"""The plan of a version of an app. Raises VersionNotFoundError."""


async def list_apps(observer: Observer) -> list[str]:
    """The ids of the apps, in order."""
    return [row["app_id"] for row in await observer.rows("list_apps")]


def deployed(observer: Observer, app_id: str) -> PlanOf:
    """The plans of an app for those who keep none: read and compiled each time that one is asked for."""
    return partial(_deployed, observer, app_id)


async def _deployed(observer: Observer, app_id: str, version: str) -> Plan:
    row = await observer.row("stored_graph", app_id, version)
    if row is None:
        raise VersionNotFoundError(app_id, version)
    return compile_app(app_from_json(json.loads(row["graph"])))
