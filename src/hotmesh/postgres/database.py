"""One app in one schema: the connections to it, its statements, and how its values are written.

What is done with it stands in modules of functions that take the `Database` first, and the connection next where the
caller holds one, in a transaction or of its own. The statements are files below `sql/queries`, known by name.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakSet

import anyio

from hotmesh.core.codec import CLEAR, Codec, Payload
from hotmesh.errors import ConnectionLostError, NotAuthorizedError
from hotmesh.postgres import sql
from hotmesh.postgres.connect import sharing
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.logins.login import WorkerLogin

logger = logging.getLogger("hotmesh.postgres")

Connection = Driver
"""A connection, for those who pass one on or open a transaction on it; only this package runs statements."""

UNUSED = 30.0
"""Seconds after which a connection that is not needed is closed."""


def _no_codec() -> None:
    """Values are stored as they are."""


class Database:
    """One app in one schema, as one member uses it. What is given no connection shares a general one."""

    def __init__(
        self,
        source: ConnectionSource,
        schema: str,
        app_id: str,
        codec: Callable[[], Codec | None] = _no_codec,
        *,
        patience: float | None = None,
        task_queue: str | None = None,
        login: WorkerLogin | None = None,
    ) -> None:
        """`patience`: seconds after which a silent database counts as lost, and how long a call waits for one.

        Those of the same `task_queue`, source and patience share their general connection. `login`: what the login may
        do, if it is a worker login; most statements are refused to it by Postgres.
        """
        self.source = source
        self.schema = schema
        self.app_id = app_id
        self.login = login
        self._codec = codec
        self._payload = CLEAR
        self._patience = patience

        def calls() -> Link:
            return Link(source, name="calls", patience=patience, wait=patience or 0.0)

        alone = task_queue is None
        self._link = calls() if alone else sharing.share(task_queue, (Link, source.ways, patience), calls)
        self.links = WeakSet((self._link,))
        """Every connection of the instance but the one that listens."""
        self._closed = False
        self._bound: dict[str, str] = {}
        self._queries: dict[str, str] = {}

    @property
    def payload(self) -> Payload:
        """How user values are written and read now; the codec may be changed at any time."""
        codec = self._codec()
        if codec is not self._payload.codec:
            self._payload = Payload(codec)
        return self._payload

    # -- statements --------------------------------------------------------------------------------------

    def query(self, name: str) -> str:
        """The statement in the file of this name; the same text each time, so that it is prepared once."""
        found = self._queries.get(name)
        if found is None:
            found = self._queries[name] = self.bound(sql.read("queries")[name])
        return found

    def bound(self, statement: str) -> str:
        """The statement with the schema put in; the same text each time, too."""
        found = self._bound.get(statement)
        if found is None:
            found = self._bound[statement] = sql.bind(statement, self.schema)
        return found

    async def value(self, query: str, *arguments: Any) -> Any:
        """The first value of what the query of this name answers."""
        async with self.connection() as connection:
            return await connection.fetchval(self.query(query), *arguments)

    async def rows(self, query: str, *arguments: Any) -> list[Any]:
        """The rows of a query that only reads: if its connection breaks, it is asked once more."""
        try:
            async with self.connection() as connection:
                return await connection.fetch(self.query(query), *arguments)
        except ConnectionLostError:
            async with self.connection() as connection:
                return await connection.fetch(self.query(query), *arguments)

    # -- connections -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """The general connection; see `Link.use`."""
        if self._closed:
            raise ConnectionLostError(f"this instance of app {self.app_id} has stopped")
        try:
            async with self._link.use() as connection:
                yield connection
        except NotAuthorizedError as error:
            if self.login is None:
                raise
            raise NotAuthorizedError(
                f"{error.__cause__ or error}; this is a worker login, which may take and answer work of its topics and "
                "nothing else: use an instance with the app's own login"
            ) from error

    def link(self, name: str, *, held: float = 0.0) -> Link:
        """A further dedicated connection, whose answers may take `held` seconds more than those of others."""
        link = Link(self.source, name=name, patience=self._patient(held))
        self.links.add(link)
        return link

    @property
    def keeps_sessions(self) -> bool:
        """Whether there is a way to Postgres on which a session is kept."""
        return self.source.direct is not None

    def session_link(self, name: str, *, held: float = 0.0) -> Link:
        """As `link`, for what belongs to a session: where there is no such way, the one there is."""
        return Link(self.source.direct or self.source, name=name, patience=self._patient(held))

    def _patient(self, held: float) -> float | None:
        return None if self._patience is None else self._patience + held

    async def close(self) -> None:
        """Close the general connection, for good: nobody is left who would close another one."""
        self._closed = True
        await sharing.give_back(self._link)

    async def close_unused(self) -> None:
        """Close connections that nobody has used for a while, until cancelled; the next use opens another."""
        while True:
            await anyio.sleep(UNUSED / 3)
            for link in list(self.links):
                try:
                    await link.close_if_idle(UNUSED)
                except Exception as error:  # noqa: BLE001 - nothing may end this loop
                    logger.warning(
                        "connection not closed", extra={"connection": link.name, "error": str(error)}
                    )
