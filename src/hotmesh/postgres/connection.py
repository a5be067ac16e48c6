"""Connections to Postgres: how they are made, and what their errors mean.

The engine keeps dedicated connections, because handing one back to a pool costs more than most statements. Each is a
`Link`: one connection, opened when first used, opened again after a loss. Driver errors are turned into ours here
and nowhere else, by type and SQLSTATE.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, cast

import anyio
import asyncpg

from hotmesh.errors import (
    ConfigError,
    ConnectionFailedError,
    ConnectionLostError,
    DatabaseError,
    HotMeshError,
    NotAuthorizedError,
    SchemaError,
)

Driver = asyncpg.Connection
"""The driver's connection; only this package uses it."""

ConnectionLike = str | Mapping[str, Any] | asyncpg.Pool | None

_LIBPQ = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER", "PGPORT")

_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.exceptions.InternalClientError)

OLDEST_SERVER = 14
"""The oldest major version of Postgres that has all that the stored functions use."""

_LOST = (
    asyncpg.exceptions.PostgresConnectionError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.IdleSessionTimeoutError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # a failover made this server a replica: connect again
    ConnectionError,
    EOFError,
)


class Source:
    """Where connections come from: a DSN, a dict of driver options, or a pool of the user's."""

    def __init__(self, connection: ConnectionLike, *, application_name: str = "hotmesh") -> None:
        self._pool: asyncpg.Pool | None = None
        self._options: dict[str, Any] = {}
        self._application_name = application_name
        if isinstance(connection, asyncpg.Pool):
            self._pool = connection
        elif isinstance(connection, str):
            self._options = {"dsn": _driver_dsn(connection)}
        elif isinstance(connection, Mapping):
            self._options = _flatten(connection)
        elif connection is not None:
            raise ConfigError(
                f"connection= takes a DSN, a dict of driver options or an asyncpg pool, not {type(connection).__name__}"
            )

    @classmethod
    def find(cls, connection: ConnectionLike, *, application_name: str = "hotmesh") -> Source:
        """The given connection; else `HOTMESH_DATABASE_URL`, else libpq's variables, else the embedded Postgres."""
        if connection is not None:
            return cls(connection, application_name=application_name)
        url = os.environ.get("HOTMESH_DATABASE_URL")
        if url:
            return cls(url, application_name=application_name)
        if any(os.environ.get(name) for name in _LIBPQ):
            return cls({}, application_name=application_name)
        from hotmesh.postgres.local import ensure_running

        return cls(ensure_running().dsn, application_name=application_name)

    @property
    def key(self) -> Any:
        """Equal for sources that lead to the same place."""
        return id(self._pool) if self._pool is not None else repr(sorted(self._options.items(), key=repr))

    def apart(self) -> Source:
        """A source of the same connections for another event loop, to which a pool of the user's does not belong."""
        if self._pool is None:
            return self
        other = Source(None, application_name=self._application_name)
        # The pool does not tell how it connects; what it was made with is in these two since its first release.
        arguments: tuple[Any, ...] = getattr(self._pool, "_connect_args", ())
        other._options = dict(getattr(self._pool, "_connect_kwargs", {}))
        if arguments:
            other._options["dsn"] = arguments[0]
        return other

    async def connect(self, *, timeout: float = 10.0) -> Driver:
        """A connection of its own. Raises ConnectionFailedError, and SchemaError if the server is too old."""
        connection = await self._open(timeout)
        version = connection.get_server_version()
        if version.major < OLDEST_SERVER:
            await self.release(connection)
            raise SchemaError(
                f"the server is Postgres {version.major}.{version.minor}; hotmesh needs Postgres {OLDEST_SERVER} or newer"
            )
        return connection

    async def _open(self, timeout: float) -> Driver:
        try:
            if self._pool is not None:
                # A proxy that behaves as the connection itself; nothing else of it is used.
                return cast("Driver", await self._pool.acquire(timeout=timeout))
            settings = {
                "application_name": self._application_name,
                **self._options.get("server_settings", {}),
            }
            options = {**self._options, "server_settings": settings}
            options.setdefault("timeout", timeout)
            return await asyncpg.connect(**options)
        except (OSError, TimeoutError, EOFError, ValueError, *_DRIVER_ERRORS) as error:
            silent = (
                f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else type(error).__name__
            )
            raise ConnectionFailedError(str(error) or silent) from error

    async def release(self, connection: Driver) -> None:
        """Close a connection, or hand it back to the user's pool."""
        if self._pool is not None:
            await self._pool.release(cast("Any", connection))
        else:
            try:
                await connection.close(timeout=2)
            except (OSError, TimeoutError, *_DRIVER_ERRORS):
                terminate(connection)


class Link:
    """One dedicated connection, used by one task at a time; made when needed, and made again after a loss."""

    def __init__(self, source: Source, *, name: str = "") -> None:
        self._source = source
        self._lock = anyio.Lock()
        self._connection: Driver | None = None
        self.name = name
        self.reconnects = 0
        """How often the connection had to be made again."""
        self._made = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Driver]:
        """The connection, for the length of the block. Errors leave it as ours; a broken one is thrown away."""
        async with self._lock:
            connection = self._connection
            if connection is None or is_closed(connection):
                connection = self._connection = await self._source.connect()
                self.reconnects += self._made
                self._made = True
            try:
                with translated():
                    yield connection
            except (ConnectionLostError, anyio.get_cancelled_exc_class()):
                # Cancelled in the middle of a statement, its state is unknown: a fresh one is safer than a reset.
                self._connection = None
                terminate(connection)
                raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not is_closed(connection):
            await self._source.release(connection)


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
        return NotAuthorizedError(f"{error}; grant the role what it needs, or connect as another one")
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


def _driver_dsn(dsn: str) -> str:
    """Drops the driver part of SQLAlchemy-style URLs (`postgresql+asyncpg://`)."""
    scheme, separator, rest = dsn.partition("://")
    if not separator:
        raise ConfigError(
            f"connection= is not a Postgres URL: {_without_password(dsn)!r}; write postgresql://…"
        )
    base = scheme.partition("+")[0]
    if base not in ("postgresql", "postgres"):
        raise ConfigError(f"connection= must start with postgresql://, not {scheme}://")
    return f"{base}://{rest}"


def _without_password(dsn: str) -> str:
    head, separator, tail = dsn.rpartition("@")
    return f"…@{tail}" if separator and head else dsn


_USES = {"store", "stream", "sub"}


def _flatten(connection: Mapping[str, Any]) -> dict[str, Any]:
    """Driver options out of the forms users write: plain options, {"dsn": …}, {"options": {…}}, or one for each use."""
    found = dict(connection)
    if found.keys() & _USES:
        missing = _USES - found.keys()
        if missing:
            raise ConfigError(f"connection= with one entry for each use lacks {', '.join(sorted(missing))}")
        # All of an app is in one database, so one of them says where.
        store = found["store"]
        return _flatten(store if isinstance(store, Mapping) else {"dsn": store})
    options = found.pop("options", None)
    if isinstance(options, Mapping):
        found = {**options, **found}
    for name in ("class", "provider", "readonly", "retry"):
        found.pop(name, None)
    if "connectionString" in found:
        found["dsn"] = found.pop("connectionString")
    if isinstance(found.get("dsn"), str):
        found["dsn"] = _driver_dsn(found["dsn"])
    return found
