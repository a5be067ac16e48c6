"""Where connections come from: found, opened, and looked at once for a pooler in the way."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Mapping
from typing import Any, Literal, cast

import anyio
import asyncpg

from hotmesh.core.arguments import GivenUrl
from hotmesh.errors import ConfigError, ConnectionFailedError, HotMeshError, SchemaError
from hotmesh.foreign_errors import kind_of, words_of
from hotmesh.interrupts import is_interrupt
from hotmesh.postgres.connect.address import address, reason
from hotmesh.postgres.connect.belonging import check_driver
from hotmesh.postgres.connect.driver import Driver, is_closed, keep_alive, statement_cache, terminate
from hotmesh.postgres.connect.failures import DRIVER_ERRORS, translated
from hotmesh.postgres.connect.options import (
    ConnectionLike,
    Factory,
    driver_dsn,
    flatten,
    pool_in,
    split,
)
from hotmesh.postgres.connect.pooler import LONGEST_WAY, hears, is_behind_pooler, keeps_statements
from hotmesh.postgres.connect.session import check_encoding, settle, take_codecs_off

LIBPQ = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER", "PGPORT")
"""Variables that say where a database is, for every program of Postgres."""

TIMEOUT = 10.0
"""Seconds to wait for a new connection."""

OLDEST_SERVER = 14
"""The oldest major version of Postgres that has all that the stored functions use."""


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
        origin: str = "connection=",
    ) -> None:
        self._origin = connection.origin if isinstance(connection, GivenUrl) else origin
        self._pool: asyncpg.Pool | None = None
        self._factory: Factory | None = None
        self._options: dict[str, Any] = {}
        self._application_name = application_name
        self.pooled: bool | None = None
        """Whether a pooler holds the sessions; None until the first connection."""
        self._prepares = True
        self.reached = False
        """Whether there has ever been a connection."""
        self._altered: list[Driver] = []
        """Those of the user's pool that read and write values in another way than they did there."""
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
            self.direct = ConnectionSource(
                direct, application_name=application_name, origin="direct_connection="
            )

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
            return cls(url, direct=direct, application_name=application_name, origin="HOTMESH_DATABASE_URL")
        if any(os.environ.get(name) for name in LIBPQ):
            names = ", ".join(name for name in LIBPQ if os.environ.get(name))
            return cls({}, direct=direct, application_name=application_name, origin=names)
        if direct is not None:
            raise ConfigError(
                "there is a direct connection, and none for everything else: set connection= or HOTMESH_DATABASE_URL"
            )
        from hotmesh.postgres.local import ensure_running

        return cls(ensure_running().dsn, application_name=application_name, origin="the embedded Postgres")

    def logged_in(self, user: str, password: str) -> ConnectionSource:
        """A source of connections to the same place, by the same ways, with another login.

        Raises ConfigError for a pool and for a function, which have a login already.
        """
        if self._pool is not None or self._factory is not None:
            raise ConfigError(
                "worker_credentials= does not go with a pool or a function that connects, which has its login: pass a "
                "DSN or options"
            )
        other = ConnectionSource(None, application_name=self._application_name, origin=self._origin)
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

    async def check_sessions(self, longest_way: float = LONGEST_WAY) -> None:
        """Make sure that notifications arrive. Raises ConfigError, which names the way out, if they do not.

        Costs one statement on a plain connection to Postgres, and a notification where there are two ways to it or
        a pooler on the only one. `longest_way`: seconds that this may take.
        """
        sender = await self.connect()
        try:
            heard = await self._hears(sender, longest_way)
            caches = statement_cache(sender) > 0
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
                f"{self._origin} leads through a pooler that keeps no sessions (PgBouncer in transaction mode?), where "
                "notifications get lost: give a direct one as well, as direct_connection= or HOTMESH_DIRECT_URL; or "
                "say direct_connection=False to do without, at the price that docs/connections.md names"
            )
        raise ConfigError(
            "direct_connection= does not hear what is sent through connection=: it leads to another database, or "
            "through a pooler that keeps no sessions"
        )

    async def _hears(self, sender: Driver, longest_way: float) -> bool:
        if self.direct is None or (self.direct is self and not self.pooled):
            return True
        listener = await self.direct.connect()
        try:
            with translated():
                return await hears(listener, sender, longest_way)
        finally:
            await self.direct.release(listener)

    async def connect(self, *, timeout: float = TIMEOUT) -> Driver:
        """A connection of its own, on which everything is as hotmesh needs it, whatever its owner has set.

        Raises ConnectionFailedError, SchemaError if the server is too old or its database holds not every text, and ConfigError.
        """
        connection = await self._open(timeout)
        try:
            version = connection.get_server_version()
            if version.major < OLDEST_SERVER:
                raise SchemaError(
                    f"the server is Postgres {version.major}.{version.minor}; hotmesh needs Postgres {OLDEST_SERVER} or newer"
                )
            check_encoding(connection)
        except SchemaError:
            await self.release(connection)
            raise
        if self.pooled is None:
            connection = await self._recognise(connection, timeout)
        await self._settle(connection)
        self.reached = True
        return connection

    async def _settle(self, connection: Driver) -> None:
        try:
            with translated():
                if (self._pool is not None or self._factory is not None) and await take_codecs_off(
                    connection
                ):
                    # Those that were lost in use never came back.
                    self._altered = [other for other in self._altered if not is_closed(other)]
                    self._altered.append(connection)
                await settle(connection, pooled=bool(self.pooled))
        except ConfigError:
            await self.release(connection)
            raise
        except HotMeshError as error:
            terminate(connection)
            raise ConnectionFailedError(str(error)) from error
        except BaseException:
            terminate(connection)
            raise

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
                check_driver(self._pool, "the given pool")
                # A proxy that behaves as the connection itself; nothing else of it is used.
                connection = cast("Driver", await self._pool.acquire(timeout=timeout))
            elif self._factory is not None:
                with anyio.fail_after(timeout):
                    connection = await self._made_by(self._factory)
            else:
                connection = await asyncpg.connect(**self._arguments(timeout))
        except ConfigError:
            raise
        except (OSError, TimeoutError, EOFError, ValueError, OverflowError, *DRIVER_ERRORS) as error:
            raise ConnectionFailedError(self._why(error, timeout)) from error
        keep_alive(connection)
        return connection

    async def _made_by(self, factory: Factory) -> Driver:
        """What the users' function makes. It may raise anything; once it has worked, that says that there is no connection.

        It is called in a task of its own: what it cancels, or leaves there, is nothing of ours.
        """
        attempt = _Attempt(factory)
        making = asyncio.ensure_future(attempt.make())
        try:
            await asyncio.wait([making])
        except asyncio.CancelledError:
            making.cancel()
            making.add_done_callback(lambda _: attempt.give_up())
            raise
        if attempt.made is not None:
            return attempt.made
        found = attempt.error
        if (
            isinstance(found, (OSError, HotMeshError, *DRIVER_ERRORS))
            or not self.reached
            or is_interrupt(found)
        ):
            raise found  # a mistake in it is shown as it is
        raise ConnectionFailedError(
            f"the function that connects raised {kind_of(found)}: {words_of(found, None)}"
        ) from found

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
        if self._pool is not None or self._factory is not None:
            return str(error) or silent
        why = reason(error, self._options) or silent
        return f"cannot connect to Postgres at {address(self._options)} (from {self._origin}): {why}"

    async def release(self, connection: Driver) -> None:
        """Close a connection, or hand it back to the user's pool, as it came from there.

        The pool makes a new one in place of one that had to be altered.
        """
        if self._pool is not None:
            if any(other is connection for other in self._altered):
                terminate(connection)
            await self._pool.release(cast("Any", connection))
        else:
            try:
                await connection.close(timeout=2)
            except (OSError, TimeoutError, *DRIVER_ERRORS):
                terminate(connection)
            except BaseException:
                terminate(connection)
                raise


class _Attempt:
    """One call of a function of the users'. What comes of it is kept here: its task may end as cancelled in any case."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self.made: Driver | None = None
        self.error: BaseException = asyncio.CancelledError()

    async def make(self) -> None:
        try:
            self.made = await _made(self._factory)
        except BaseException as error:  # noqa: BLE001 - no `SystemExit` of its own ends the event loop
            self.error = error

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        if self.made is not None:
            terminate(self.made)


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
