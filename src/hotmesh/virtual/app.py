"""The app that calls and schedules are jobs of: one per namespace and app id, deployed by whoever comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hotmesh.errors import ConfigError
from hotmesh.mesh import HotMesh
from hotmesh.postgres import definitions
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.database import Database
from hotmesh.postgres.locks import alone

VERSION: Final = 3
"""That of `app.yaml`."""

DEPLOYING: Final = 7301
"""The advisory lock of those who deploy it."""


def document(app_id: str) -> str:
    """The app as YAML, under this id."""
    return Path(__file__).with_name("app.yaml").read_text(encoding="utf-8").replace("APP", app_id)


async def ensure_active(mesh: HotMesh, source: ConnectionSource) -> None:
    """See to it that the app is active, in this version or a later one.

    Any number of processes may do so at once, of different releases, too: they take turns by an advisory lock, and none
    goes back to an older version. Raises ConfigError if the app id belongs to another app.
    """
    database = Database(source, mesh.namespace, mesh.app_id)
    try:
        if await _is_active(database):
            return
        async with alone(database, DEPLOYING):
            if not await _is_active(database):
                await mesh.deploy(document(mesh.app_id))
                await mesh.activate(str(VERSION))
    finally:
        await database.close()


async def _is_active(database: Database) -> bool:
    """Whether nothing has to be done. Raises ConfigError if the active version is not one of this app's."""
    state = await definitions.app_state(database)
    version = None if state is None else state[1]
    if version is None:
        return False
    stored = await definitions.graph(database, version)
    if stored is None or f'"{database.app_id}.cron"' not in stored[0]:
        raise ConfigError(
            f"app {database.app_id} in namespace {database.schema} is an app of its own, not one for calls and schedules: "
            "choose another app_id"
        )
    return _is_current(version)


def _is_current(version: str | None) -> bool:
    return version is not None and version.isdecimal() and int(version) >= VERSION
