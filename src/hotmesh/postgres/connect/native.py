"""A native connection, to try connection settings with, and for callers who want to share one."""

from __future__ import annotations

from typing import Self

import anyio
import anyio.to_thread

from hotmesh.errors import DatabaseError
from hotmesh.postgres.connect import sharing
from hotmesh.postgres.connect.driver import Driver, is_closed
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.postgres.connect.source import ConnectionSource


class PostgresConnection:
    """One connection of the driver (asyncpg), outside of all instances.

    Those who ask for the same options and the same `task_queue` share it, so it serves one statement at a time; without a
    task queue it is theirs alone.

        connection = await PostgresConnection.connect("postgresql://me@db/shop", task_queue="reports")
        await connection.client.fetchval("select 1")
        await connection.disconnect()
    """

    def __init__(self, connection: ConnectionLike | ConnectionSource = None) -> None:
        """Not connected; see `connect`."""
        self._given = connection
        self._source: ConnectionSource | None = None
        self._client: Driver | None = None
        self._lock = anyio.Lock()

    @classmethod
    async def connect(cls, connection: ConnectionLike = None, *, task_queue: str | None = None) -> Self:
        """Connect, or join who has. `connection` is that of `HotMesh.init`.

        Raises ConfigError, ConnectionFailedError, SchemaError.
        """
        source = await _source(connection)
        found = sharing.share(task_queue, (cls, source.ways), lambda: cls(source))
        try:
            await found._open()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await found.disconnect()
            raise
        return found

    async def _open(self) -> None:
        async with self._lock:
            if self._client is None or is_closed(self._client):
                self._source = (
                    self._given if isinstance(self._given, ConnectionSource) else await _source(self._given)
                )
                self._client = await self._source.connect()

    @property
    def client(self) -> Driver:
        """The driver's connection. Raises DatabaseError if there is none (any more)."""
        if self._client is None or is_closed(self._client):
            raise DatabaseError("Postgres client is not connected")
        return self._client

    async def disconnect(self) -> None:
        """Need it no more; the last who does closes it. Nothing happens if it is not connected."""
        await sharing.give_back(self)

    async def close(self) -> None:
        """Close it for all who share it."""
        client, self._client = self._client, None
        if client is not None and self._source is not None and not is_closed(client):
            await self._source.release(client)

    @staticmethod
    def statistics() -> sharing.ConnectionStatistics:
        """How many connections of this process are shared, and how often."""
        return sharing.statistics()


async def connect_client(connection: ConnectionLike = None, task_queue: str | None = None) -> Driver:
    """The driver's connection, which proves that connection settings work: what is wrong with them is raised.

    Close it, or let `disconnect_all` do that. Raises ConfigError (`Unable to identify provider type …`),
    ConnectionFailedError (`postgres-provider-connection-failed: …`), SchemaError if the server is too old.
    """
    return (await PostgresConnection.connect(connection, task_queue=task_queue)).client


async def _source(connection: ConnectionLike) -> ConnectionSource:
    return await anyio.to_thread.run_sync(lambda: ConnectionSource.find(connection))
