"""The versions of an app, as they are stored."""

from __future__ import annotations

from typing import Any

from hotmesh.core.wire import loads
from hotmesh.postgres.database import Database


async def app_state(database: Database) -> tuple[int, str | None] | None:
    """Epoch and active version, or None if nothing was ever deployed."""
    rows = await database.rows("app_state", database.app_id)
    return (rows[0]["epoch"], rows[0]["active_version"]) if rows else None


async def apps(database: Database) -> list[str]:
    """The ids of all apps of the namespace."""
    return [row["app_id"] for row in await database.rows("list_apps")]


async def graph(database: Database, version: str) -> tuple[str, str] | None:
    """Stored form and checksum of a version."""
    rows = await database.rows("stored_graph", database.app_id, version)
    return (rows[0]["graph"], rows[0]["checksum"]) if rows else None


async def checksums(database: Database) -> dict[str, str]:
    """Version → checksum of its stored form."""
    rows = await database.rows("checksums", database.app_id)
    return {row["version"]: row["checksum"] for row in rows}


async def hook_rules(database: Database, topic: str) -> list[dict[str, Any]]:
    """The first rule on a hook topic of every deployed version, each different one once: `to` and `actual`."""
    rows = await database.rows("hook_rules", database.app_id, topic)
    return [{"to": row["to"], "actual": loads(row["actual"])} for row in rows]


async def deploy(database: Database, version: str, graph: str, checksum: str, wake: str) -> bool:
    """Store a version; whether anything changed."""
    return bool(await database.value("deploy_version", database.app_id, version, graph, checksum, wake))
