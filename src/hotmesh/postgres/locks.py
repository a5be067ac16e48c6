"""Turns that processes take by advisory locks; Postgres lets go of them with the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hotmesh.postgres.database import Database


@asynccontextmanager
async def alone(database: Database, purpose: int) -> AsyncIterator[None]:
    """Wait until nobody else is in such a block for the same app and purpose; then nobody else is until its end."""
    link = database.link("turn")
    try:
        async with link.use() as connection, connection.transaction():
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended($1, $2))",
                f"{database.schema}.{database.app_id}",
                purpose,
            )
            yield
    finally:
        await link.close()
