"""The sessions of worker logins, as those see them who run the app."""

from __future__ import annotations

from hotmesh.postgres.database import Connection, Database


async def end_stalled_workers(database: Database, connection: Connection, limit: float) -> list[str] | None:
    """End sessions of worker logins with a transaction open for `limit` seconds; None: there are no such logins."""
    found: list[str] | None = await connection.fetchval(
        database.query("end_stalled_workers"), database.app_id, limit
    )
    return found


async def restrained_workers(database: Database, connection: Connection) -> list[str]:
    """Worker logins that get no work, since they rolled back too often what took some; each is told of once a minute."""
    found: list[str] = await connection.fetchval(database.query("restrained_workers"), database.app_id)
    return found
