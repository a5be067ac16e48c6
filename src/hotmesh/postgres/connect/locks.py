"""Turns that processes take by advisory locks; Postgres lets go of them with the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotmesh.postgres.store import Store


@asynccontextmanager
async def alone(store: Store, purpose: int) -> AsyncIterator[None]:
    """Wait until nobody else is in such a block for the same app and purpose; then nobody else is until its end."""
    link = store.link("turn")
    try:
        async with link.use() as connection, connection.transaction():
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended($1, $2))",
                f"{store.schema}.{store.app_id}",
                purpose,
            )
            yield
    finally:
        await link.close()
