"""What processes tell each other by NOTIFY: on which channel, and whether it can be heard there."""

from __future__ import annotations

from collections.abc import Sequence

from hotmesh.postgres.database import Connection, Database


async def channel(database: Database, connection: Connection) -> str:
    """The channel on which the app's processes hear of what there is to do."""
    if database.login is not None:
        return database.login.channel
    return str(await connection.fetchval(database.query("channel"), database.app_id))


async def notify(database: Database, connection: Connection, messages: Sequence[tuple[str, str]]) -> None:
    """Send NOTIFY messages (channel, payload)."""
    channels, payloads = zip(*messages, strict=True)
    await connection.fetchval(database.query("notify"), channels, payloads)


async def is_writable(database: Database, connection: Connection) -> bool:
    """Whether this is a server on which things happen; one that a failover left behind is read-only."""
    return await connection.execute(database.query("is_writable")) != "SELECT 0"
