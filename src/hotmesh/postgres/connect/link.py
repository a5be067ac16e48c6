"""A dedicated connection, opened when first used, and opened again after a loss.

The engine keeps such connections, because handing one back to a pool costs more than most statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from hotmesh.errors import ConnectionFailedError, ConnectionLostError, DatabaseError
from hotmesh.postgres.connect.driver import Driver, is_closed, terminate
from hotmesh.postgres.connect.failures import backoff, translated
from hotmesh.postgres.connect.source import TIMEOUT, ConnectionSource

STOOD_STILL = 1.0
"""Seconds by which a timer of a blocked event loop is late."""


class Link:
    """One dedicated connection, used by one task at a time; made when needed, and made again after a loss.

    `patience`: seconds after which a connection that does not answer counts as lost, so that a half-open one is found
    out; None: it may take any time. `wait`: how long to try when there is no connection; 0: once, because whoever
    uses it has a pause of its own.
    """

    def __init__(
        self, source: ConnectionSource, *, name: str = "", patience: float | None = None, wait: float = 0.0
    ) -> None:
        self._source = source
        self._lock = anyio.Lock(fast_acquire=True)
        self._connection: Driver | None = None
        self._patience = patience
        self._wait = wait
        self._failed_at = float("-inf")
        self._failure: ConnectionFailedError | None = None
        self._silent = False
        self.used_at = float("-inf")
        """When it was last used, by the event loop's clock."""
        self.name = name
        self.reconnects = 0
        """How often the connection had to be made again."""
        self._made = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Driver]:
        """The connection, for the length of the block. Errors leave it as ours; a broken one is thrown away."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        async with self._lock:
            connection = self._connection
            if connection is None or is_closed(connection):
                connection = self._connection = await self._connected(since)
                self.reconnects += self._made
                self._made = True
            self._silent = False
            guard = self._guard(loop, connection)
            try:
                with translated():
                    yield connection
            except ConnectionLostError as error:
                self._drop(connection)
                if self._silent:
                    raise ConnectionLostError(
                        f"Postgres did not answer within {self._patience:g} s: the connection counts as lost"
                    ) from error
                raise
            except anyio.get_cancelled_exc_class():
                # Cancelled in the middle of a statement, its state is unknown: a fresh one is safer than a reset.
                self._drop(connection)
                raise
            finally:
                self.used_at = loop.time()
                if guard is not None:
                    guard.cancel()

    async def _connected(self, since: float) -> Driver:
        """A new connection. Who waited in line while the one before tried in vain does not try as long again."""
        loop = asyncio.get_running_loop()
        if self._failure is not None and since < self._failed_at:
            raise self._failed(self._failure)
        failures = 0
        while True:
            try:
                return await self._source.connect(timeout=min(self._patience or TIMEOUT, TIMEOUT))
            except ConnectionFailedError as error:
                delay = backoff(failures, longest=1.0)
                failures += 1
                if not self._source.reached or loop.time() + delay - since >= self._wait:
                    self._failed_at, self._failure = loop.time(), error
                    raise self._failed(error) from error
                await anyio.sleep(delay)

    def _failed(self, error: ConnectionFailedError) -> DatabaseError:
        """A place that was reached before has been lost; one that never was could not be reached."""
        if not self._source.reached:
            return ConnectionFailedError(error.reason)
        return ConnectionLostError(
            f"the connection to Postgres is lost, and a new one could not be made: {error.reason}"
        )

    def _guard(self, loop: asyncio.AbstractEventLoop, connection: Driver) -> _Guard | None:
        return None if self._patience is None else _Guard(loop, self._patience, self._give_up, connection)

    def _give_up(self, connection: Driver) -> None:
        self._silent = True
        terminate(connection)

    def _drop(self, connection: Driver) -> None:
        self._connection = None
        terminate(connection)

    async def close_if_idle(self, idle: float) -> None:
        """Close the connection if nobody has used it for `idle` seconds; the next use opens another."""
        loop = asyncio.get_running_loop()
        if self._connection is not None and not self._lock.locked() and loop.time() - self.used_at >= idle:
            async with self._lock:
                await self.close()
                self._made = False  # no loss

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not is_closed(connection):
            await self._source.release(connection)


class _Guard:
    """Calls `give_up(connection)` after `patience` seconds, unless cancelled before.

    An event loop that stood still may have the answer at hand, unread: it gets a moment to read it.
    """

    __slots__ = ("_connection", "_due", "_give_up", "_handle", "_loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        patience: float,
        give_up: Callable[[Driver], None],
        connection: Driver,
    ) -> None:
        self._loop = loop
        self._give_up = give_up
        self._connection = connection
        self._due = loop.time() + patience
        self._handle = loop.call_at(self._due, self._over)

    def _over(self) -> None:
        now = self._loop.time()
        if now - self._due > STOOD_STILL:
            self._due = now + STOOD_STILL
            self._handle = self._loop.call_at(self._due, self._over)
        else:
            self._give_up(self._connection)

    def cancel(self) -> None:
        self._handle.cancel()
