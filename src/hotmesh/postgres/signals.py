"""Signals to many jobs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hotmesh.postgres.database import Connection, Database


async def send_signals(
    database: Database,
    connection: Connection,
    topic: str,
    keys: Sequence[str],
    payloads: Sequence[str],
    broadcast: int | None,
    wake: str,
) -> int:
    """Signal many keys in one statement, which also ends the broadcast they came from; how many waited."""
    return int(
        await connection.fetchval(
            database.query("send_signals"), database.app_id, topic, keys, payloads, KEPT, broadcast, wake
        )
    )


KEPT: Final = 600.0
"""Seconds for which such a signal is kept for a wait that comes later."""


async def next_broadcast(database: Database, connection: Connection) -> dict[str, Any] | None:
    """A broadcast of a flow that no other engine is carrying out, locked in the caller's transaction."""
    row = await connection.fetchrow(database.query("next_broadcast"), database.app_id)
    if row is None:
        return None
    payload = database.payload
    return {**row, "query": payload.loads(row["query"]), "data": payload.loads(row["data"])}


async def bury_broadcast(database: Database, connection: Connection, broadcast: int, reason: str) -> None:
    """Move a broadcast that cannot be carried out to the dead letters."""
    await connection.execute(database.query("bury_broadcast"), database.app_id, broadcast, reason)
