"""What the queries of this package run on: one namespace, over an instance's connections or over one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import anyio.to_thread

from hotmesh.core.codec import OPAQUE, Payload
from hotmesh.errors import SchemaError
from hotmesh.postgres import sql
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.connect.failures import translated
from hotmesh.postgres.connect.options import ConnectionLike
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.migrate import no_tables


class Observed(Protocol):
    """A namespace that can be asked, as a `Database` can: connections, the schema in statements, and the codec."""

    @property
    def payload(self) -> Payload: ...
    def bound(self, statement: str, /) -> str: ...
    def connection(self) -> AbstractAsyncContextManager[Driver]: ...


class Observer:
    """Runs queries by the names of their files. Errors are those of the package."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    @property
    def payload(self) -> Payload:
        """How the values of users are read."""
        return self._observed.payload

    async def rows(self, query: str, *arguments: object) -> list[Any]:
        """All rows of a query."""
        async with self._observed.connection() as connection:
            return list(await connection.fetch(self._statement(query), *arguments))

    async def row(self, query: str, *arguments: object) -> Any:
        """The first row of a query, or None."""
        async with self._observed.connection() as connection:
            return await connection.fetchrow(self._statement(query), *arguments)

    @asynccontextmanager
    async def at_one_moment(self) -> AsyncIterator[Observer]:
        """An observer that sees everything as it is now, as long as the block lasts."""
        async with (
            self._observed.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield Observer(_OneConnection(connection, self._observed.bound, self.payload))

    async def server_version(self) -> str:
        """Such as `18.1`."""
        return str((await self.row("server_version"))["server_version"]).split()[0]

    def _statement(self, query: str) -> str:
        return self._observed.bound(sql.read("queries")[query])


@asynccontextmanager
async def observing(
    connection: ConnectionLike | ConnectionSource, namespace: str, *, application_name: str = "hotmesh"
) -> AsyncIterator[Observer]:
    """An observer of a namespace with a connection of its own, as long as the block lasts.

    `connection` is found as `HotMesh.init` finds it. What is encoded is none of such an observer's business: it may have
    no key, and reads a placeholder. Raises ConnectionFailedError.
    """
    source = (
        connection
        if isinstance(connection, ConnectionSource)
        else await anyio.to_thread.run_sync(
            lambda: ConnectionSource.find(connection, application_name=application_name)
        )
    )
    driver = await source.connect()
    try:
        yield Observer(_OneConnection(driver, lambda statement: sql.bind(statement, namespace), OPAQUE))
    except SchemaError as error:
        missing = await no_tables(driver, namespace)
        if missing is None:
            raise
        raise missing from error
    finally:
        await source.release(driver)


class _OneConnection:
    """A namespace over one connection that somebody else opens and closes."""

    def __init__(self, connection: Driver, bound: Callable[[str], str], payload: Payload) -> None:
        self._connection = connection
        self.bound = bound
        self.payload = payload

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Driver]:
        with translated():
            yield self._connection
