"""Connections to Postgres: how they are made, and what their errors mean.

The engine keeps dedicated connections, because handing one back to a pool costs more than most statements. Each is a
`Link`: one connection, opened when first used, opened again after a loss. Driver errors are turned into ours here
and nowhere else, by type and SQLSTATE.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Literal, cast

import anyio
import asyncpg

from hotmesh.errors import (
    CodecError,
    ConfigError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    HotMeshError,
    NotAuthorizedError,
    SchemaError,
)
from hotmesh.postgres.connect.options import ConnectionLike, Factory, driver_dsn, flatten, pool_in, split
from hotmesh.postgres.connect.pooler import hears, is_behind_pooler, keeps_statements

Driver = asyncpg.Connection
"""The driver's connection; only this package uses it."""

_LIBPQ = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER", "PGPORT")

_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.exceptions.InternalClientError)

TIMEOUT = 10.0
"""Seconds to wait for a new connection."""

OLDEST_SERVER = 14
"""The oldest major version of Postgres that has all that the stored functions use."""

_LOST = (
    asyncpg.exceptions.PostgresConnectionError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.IdleSessionTimeoutError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # a failover made this server a replica: connect again
    OSError,  # with all that the system says about a broken line, and TimeoutError
    EOFError,
)


class ConnectionSource:
    """Where connections come from: a DSN, a dict of driver options, a pool of the user's, or a function that connects.

    `direct` is where a session is kept, for LISTEN and migrations: this very source unless another one was given,
    and None if there is no such way (`direct=False`).
    """

    def __init__(
        self,
        connection: ConnectionLike,
        *,
        direct: ConnectionLike | Literal[False] = None,
        application_name: str = "hotmesh",
    ) -> None:
        self._pool: asyncpg.Pool | None = None
        self._factory: Factory | None = None
        self._options: dict[str, Any] = {}
        self._application_name = application_name
        self.pooled: bool | None = None
        """Whether a pooler holds the sessions; None until the first connection."""
        self._prepares = True
        self.reached = False
        """Whether there has ever been a connection."""
        connection, direct = split(connection, direct)
        pool = pool_in(connection) if isinstance(connection, Mapping) else None
        if isinstance(connection, asyncpg.Pool) or pool is not None:
            self._pool = connection if isinstance(connection, asyncpg.Pool) else pool
        elif isinstance(connection, str):
            self._options = {"dsn": driver_dsn(connection)}
        elif isinstance(connection, Mapping):
            self._options = flatten(connection)
        elif callable(connection):
            self._factory = connection
        elif connection is not None:
            raise ConfigError(
                "connection= takes a DSN, a dict of driver options, an asyncpg pool or a function that connects, "
                f"not {type(connection).__name__}"
            )
        self.direct: ConnectionSource | None = self
        if direct is False:
            self.direct = None
        elif direct is True:
            raise ConfigError("direct_connection= takes what connection= takes, or False, not True")
        elif direct is not None:
            self.direct = ConnectionSource(direct, application_name=application_name)

    @classmethod
    def find(
        cls,
        connection: ConnectionLike,
        *,
        direct: ConnectionLike | Literal[False] = None,
        application_name: str = "hotmesh",
    ) -> ConnectionSource:
        """The given connection; else `HOTMESH_DATABASE_URL`, else libpq's variables, else the embedded Postgres.

        `direct`, likewise; `HOTMESH_DIRECT_URL` counts where `connection` is taken from the environment, too.
        """
        if connection is not None:
            return cls(connection, direct=direct, application_name=application_name)
        if direct is None:
            direct = os.environ.get("HOTMESH_DIRECT_URL") or None
        url = os.environ.get("HOTMESH_DATABASE_URL")
        if url:
            return cls(url, direct=direct, application_name=application_name)
        if any(os.environ.get(name) for name in _LIBPQ):
            return cls({}, direct=direct, application_name=application_name)
        if direct is not None:
            raise ConfigError(
                "there is a direct connection, and none for everything else: set connection= or HOTMESH_DATABASE_URL"
            )
        from hotmesh.postgres.local import ensure_running

        return cls(ensure_running().dsn, application_name=application_name)

    def logged_in(self, user: str, password: str) -> ConnectionSource:
        """A source of connections to the same place, by the same ways, with another login.

        Raises ConfigError for a pool and for a function, which have a login already.
        """
        if self._pool is not None or self._factory is not None:
            raise ConfigError(
                "worker_credentials= does not go with a pool or a function that connects, which has its login: pass a "
                "DSN or options"
            )
        other = ConnectionSource(None, application_name=self._application_name)
        other._options = {**self._options, "user": user, "password": password}
        if self.direct is not self:
            other.direct = None if self.direct is None else self.direct.logged_in(user, password)
        return other

    @property
    def key(self) -> Any:
        """Equal for sources that lead to the same place."""
        given = self._pool or self._factory
        return id(given) if given is not None else repr(sorted(self._options.items(), key=repr))

    @property
    def ways(self) -> Any:
        """Equal for sources that lead to the same place, and by the same direct way."""
        return self.key, None if self.direct is None else self.direct.key

    def given(self, connection: ConnectionLike) -> ConnectionSource:
        """The source of a further connection of the same instance; this one itself if it leads to the same place.

        Raises ConfigError.
        """
        found = ConnectionSource(connection, application_name=self._application_name)
        same = found.key == self.key and (found.direct is found or found.ways == self.ways)
        return self if same else found

    def apart(self) -> ConnectionSource:
        """A source of the same connections for another event loop, to which a pool of the user's does not belong."""
        if self._pool is None:
            return self
        other = ConnectionSource(None, application_name=self._application_name)
        # The pool does not tell how it connects; what it was made with is in these two since its first release.
        arguments: tuple[Any, ...] = getattr(self._pool, "_connect_args", ())
        other._options = dict(getattr(self._pool, "_connect_kwargs", {}))
        if arguments:
            other._options["dsn"] = arguments[0]
        return other

    def check_room(self, needed: int) -> None:
        """Raise ConfigError if a pool of the user's can never hold `needed` connections at once."""
        for source in {id(source): source for source in (self, self.direct) if source is not None}.values():
            if source._pool is not None and source._pool.get_max_size() < needed:
                raise ConfigError(
                    f"the pool has room for {source._pool.get_max_size()} connections, and an instance keeps up to "
                    f"{needed} for itself: create it with max_size={needed} or more, plus those of further "
                    "instances and your own, or pass a URL instead of the pool"
                )

    async def check_sessions(self) -> None:
        """Make sure that notifications arrive. Raises ConfigError, which names the way out, if they do not.

        Costs one statement on a plain connection to Postgres, and a notification where there are two ways to it or
        a pooler on the only one.
        """
        sender = await self.connect()
        try:
            heard = await self._hears(sender)
            caches = _statement_cache(sender) > 0
        finally:
            await self.release(sender)
        if self.direct is self and heard:
            self._prepares = True  # no pooler, or one that keeps whole sessions
        if not self._prepares and caches and "statement_cache_size" not in self._options:
            raise ConfigError(
                "the connections given lead through a pooler that loses prepared statements, and use them: create "
                "the pool with statement_cache_size=0, or pass the URL instead; if the pooler keeps sessions, leave "
                "direct_connection out"
            )
        if heard:
            return
        if self.direct is self:
            raise ConfigError(
                "connection= leads through a pooler that keeps no sessions (PgBouncer in transaction mode?), where "
                "notifications get lost: give a direct one as well, as direct_connection= or HOTMESH_DIRECT_URL; or "
                "say direct_connection=False to do without, at the price that docs/connections.md names"
            )
        raise ConfigError(
            "direct_connection= does not hear what is sent through connection=: it leads to another database, or "
            "through a pooler that keeps no sessions"
        )

    async def _hears(self, sender: Driver) -> bool:
        if self.direct is None or (self.direct is self and not self.pooled):
            return True
        listener = await self.direct.connect()
        try:
            with translated():
                return await hears(listener, sender)
        finally:
            await self.direct.release(listener)

    async def connect(self, *, timeout: float = TIMEOUT) -> Driver:
        """A connection of its own. Raises ConnectionFailedError, and SchemaError if the server is too old."""
        connection = await self._open(timeout)
        version = connection.get_server_version()
        if version.major < OLDEST_SERVER:
            await self.release(connection)
            raise SchemaError(
                f"the server is Postgres {version.major}.{version.minor}; hotmesh needs Postgres {OLDEST_SERVER} or newer"
            )
        if self.pooled is None:
            connection = await self._recognise(connection, timeout)
        self.reached = True
        return connection

    async def _recognise(self, connection: Driver, timeout: float) -> Driver:
        """Look once whether a pooler is in the way, and whether statements may be prepared there."""
        try:
            with translated():
                pooled = await is_behind_pooler(connection)
                prepares = not pooled or await keeps_statements(connection)
        except HotMeshError as error:
            terminate(connection)
            raise ConnectionFailedError(str(error)) from error
        except BaseException:
            terminate(connection)
            raise
        self.pooled = pooled
        if not prepares and "statement_cache_size" not in self._options:
            self._prepares = False
            if self._pool is None and self._factory is None:
                await self.release(connection)
                return await self._open(timeout)
        return connection

    async def _open(self, timeout: float) -> Driver:
        try:
            if self._pool is not None:
                # A proxy that behaves as the connection itself; nothing else of it is used.
                connection = cast("Driver", await self._pool.acquire(timeout=timeout))
            elif self._factory is not None:
                with anyio.fail_after(timeout):
                    connection = await _made(self._factory)
            else:
                connection = await asyncpg.connect(**self._arguments(timeout))
        except ConfigError:
            raise
        except (OSError, TimeoutError, EOFError, ValueError, OverflowError, *_DRIVER_ERRORS) as error:
            raise ConnectionFailedError(self._why(error, timeout)) from error
        keep_alive(connection)
        return connection

    def _arguments(self, timeout: float) -> dict[str, Any]:
        options = {"timeout": timeout, **self._options}
        if not self._prepares:
            options["statement_cache_size"] = 0
        options["server_settings"] = {
            "application_name": self._application_name,
            **self._options.get("server_settings", {}),
        }
        return options

    def _why(self, error: BaseException, timeout: float) -> str:
        if isinstance(error, TimeoutError) and self._pool is not None:
            return f"no connection of the pool became free within {timeout:g} s (max_size={self._pool.get_max_size()})"
        if isinstance(error, asyncpg.exceptions.TooManyConnectionsError):
            return f"{error}; raise max_connections of the server, or put a pooler in front of it"
        silent = (
            f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else type(error).__name__
        )
        return str(error) or silent

    async def release(self, connection: Driver) -> None:
        """Close a connection, or hand it back to the user's pool."""
        if self._pool is not None:
            await self._pool.release(cast("Any", connection))
        else:
            try:
                await connection.close(timeout=2)
            except (OSError, TimeoutError, *_DRIVER_ERRORS):
                terminate(connection)
            except BaseException:
                terminate(connection)
                raise


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
        self._lock = anyio.Lock()
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


STOOD_STILL = 1.0
"""Seconds by which a timer of a blocked event loop is late."""


def backoff(failures: int, *, longest: float) -> float:
    """Seconds to pause after so many failures in a row: from 0.1 doubled to `longest`, up to a fifth less by chance.

    By chance, so that processes that lost the same server do not come back to it in step.
    """
    return float(min(0.1 * 2.0 ** min(failures, 16), longest) * (1 - random.random() / 5))  # noqa: S311 - no secret


def _statement_cache(connection: Driver) -> int:
    """How many prepared statements the driver keeps on a connection."""
    return int(getattr(getattr(connection, "_config", None), "statement_cache_size", 0))


def keep_alive(connection: Driver) -> None:
    """Let the system look after the peer of a TCP connection: one that is silent for half a minute has gone."""
    transport = getattr(connection, "_transport", None)
    found = None if transport is None else transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


_KEEPALIVE = (
    ("TCP_KEEPIDLE", 15),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 30_000),
)
"""Seconds, but for the last: milliseconds that sent bytes may stay unacknowledged."""


async def _made(factory: Factory) -> Driver:
    """What a function of the users' has made. Raises ConfigError if that is no connection."""
    found = factory()
    connection = await found if inspect.isawaitable(found) else found
    # Not by its class: that of a pool's connections is another one.
    if not callable(getattr(connection, "get_server_version", None)):
        raise ConfigError(
            f"connection= is a function that returned {type(connection).__name__}; it must be a coroutine function "
            "that returns a connection of asyncpg"
        )
    return connection


def is_closed(connection: Driver) -> bool:
    """Whether a connection has ended. One of a pool went back there when it did, and says so by an error."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def terminate(connection: Driver) -> None:
    """End a connection at once, whatever it is doing."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


class translated:  # noqa: N801 - reads as a statement: `with translated():`
    """Turns the driver's errors into ours, chained. Cheap: it is around every statement."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, HotMeshError):
            return
        translation = translate(error)
        if translation is not None:
            raise translation from error


def translate(error: BaseException) -> HotMeshError | None:
    """Our error for one of the driver's, or None if it is none of the driver's."""
    if isinstance(error, asyncpg.exceptions.InsufficientPrivilegeError):
        return NotAuthorizedError(
            f"{error}; grant the role what it needs (`hotmesh migrate --grant ROLE`), or connect as another one"
        )
    if isinstance(error, _LOST):
        return ConnectionLostError(
            f"the connection to Postgres was lost: {str(error) or type(error).__name__}"
        )
    # The driver's own state may be confused by an end at the wrong moment, too; a new connection starts afresh.
    if isinstance(error, asyncpg.InterfaceError | asyncpg.exceptions.InternalClientError):
        return ConnectionLostError(f"the connection to Postgres cannot be used: {error}")
    if isinstance(error, asyncpg.exceptions.UndefinedTableError | asyncpg.exceptions.UndefinedFunctionError):
        return SchemaError(
            f"the tables of hotmesh are missing or incomplete ({error}); run `hotmesh migrate`"
        )
    if isinstance(error, asyncpg.PostgresError):
        return StatementError(error)
    return None


class StatementError(DatabaseError):
    """Postgres refused a statement; `sqlstate` tells why."""

    def __init__(self, error: asyncpg.PostgresError) -> None:
        self.sqlstate: str = error.sqlstate or ""
        super().__init__(f"Postgres refused a statement ({self.sqlstate}): {error}")


def passing(error: BaseException) -> bool:
    """Whether it is the state of the database that refuses a step, and not the step: deadlock, disk full, time-out; or
    the codec, which may have no key at the moment.
    """
    if isinstance(error, CodecError):
        return True
    sqlstate = getattr(error, "sqlstate", None) or ""
    return sqlstate[:2] in ("40", "53") or sqlstate in ("55P03", "57014")


def id_is_held(error: BaseException) -> bool:
    """Whether the id of a job to be created is in a transaction of somebody's that has not ended yet."""
    return getattr(error, "sqlstate", None) == "55P03"


__all__ = [
    "ConnectionLike",
    "ConnectionSource",
    "Driver",
    "Link",
    "StatementError",
    "backoff",
    "is_closed",
    "terminate",
    "translate",
    "translated",
]
