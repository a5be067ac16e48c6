"""One statement on a connection that belongs to the caller, within whatever transaction the caller has open there.

Accepted are connections of asyncpg and psycopg (3), and connections and sessions of SQLAlchemy, synchronous ones too:
those run in a thread meanwhile, while their owner waits. Only asyncpg has to be installed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import anyio.to_thread
import asyncpg

from hotmesh.errors import ConfigError, NotAuthorizedError, SchemaError
from hotmesh.postgres.connect.belonging import check_driver

_ACCEPTED: Final = "an asyncpg or psycopg connection, or a connection or session of SQLAlchemy"

_MISSING: Final = ("3F000", "42883", "42P01")
"""SQLSTATEs of a database without our tables and functions: no such schema, function, table."""


async def fetch_row(
    connection: Any, select: str, types: Sequence[str], arguments: Sequence[Any]
) -> Sequence[Any]:
    """The row of `select … from a_function`, which is called with the arguments, of these types in Postgres.

    Raises ConfigError for a connection of an unknown kind, SchemaError if its database has no such function, and
    NotAuthorizedError; any other error as the caller's driver raises it.
    """
    check_driver(connection, "the given connection")
    try:
        return await _fetch_row(connection, select, types, arguments)
    except Exception as error:
        sqlstate = _sqlstate(error)
        if sqlstate in _MISSING:
            raise SchemaError(
                f"the given connection leads to a database without the tables of this hotmesh ({error}); it must be "
                "the same one, and migrated"
            ) from error
        if sqlstate == "42501":
            raise NotAuthorizedError(
                f"{error}; grant the role of the given connection usage of the schema, and execute on the function"
            ) from error
        raise


async def _fetch_row(
    connection: Any, select: str, types: Sequence[str], arguments: Sequence[Any]
) -> Sequence[Any]:
    # With casts, because the types must not depend on what is null, nor on the driver; from text, since numbers may have a
    # codec of the caller's.
    if isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
        places = ", ".join(f"${number}::text::{kind}" for number, kind in enumerate(types, 1))
        texts = [None if argument is None else str(argument) for argument in arguments]
        return tuple(await connection.fetchrow(f"{select}({places})", *texts) or ())
    # A cursor of psycopg's own, and not of the connection's factory, whose placeholders and rows may be others.
    places = ", ".join(f"%s::{kind}" for kind in types)
    statement: Any = f"{select}({places})"
    if _is(connection, "psycopg", "AsyncConnection"):
        from psycopg import AsyncCursor

        async with AsyncCursor(connection, row_factory=_psycopg_rows()) as cursor:
            await cursor.execute(statement, arguments)
            return tuple(await cursor.fetchone() or ())
    if _is(connection, "psycopg", "Connection"):
        from psycopg import Cursor

        def run() -> Sequence[Any]:
            with Cursor(connection, row_factory=_psycopg_rows()) as cursor:
                cursor.execute(statement, arguments)
                return tuple(cursor.fetchone() or ())

        return await anyio.to_thread.run_sync(run)
    if "sqlalchemy" in sys.modules:
        return await _fetch_by_sqlalchemy(connection, select, types, arguments)
    raise _unknown(connection)


async def _fetch_by_sqlalchemy(
    connection: Any, select: str, types: Sequence[str], arguments: Sequence[Any]
) -> Sequence[Any]:
    from sqlalchemy import text

    names = [f"a{number}" for number in range(len(arguments))]
    places = ", ".join(f"cast(:{name} as {kind})" for name, kind in zip(names, types, strict=True))
    statement = text(f"{select}({places})")
    values = dict(zip(names, arguments, strict=True))
    if _is(connection, "sqlalchemy.ext.asyncio", "AsyncConnection", "AsyncSession", "async_scoped_session"):
        return tuple((await connection.execute(statement, values)).one())
    if not _is(connection, "sqlalchemy", "Connection") and not _is(
        connection, "sqlalchemy.orm", "Session", "scoped_session"
    ):
        raise _unknown(connection)
    bind = connection.get_bind() if hasattr(connection, "get_bind") else connection
    if bind.dialect.is_async:
        raise ConfigError(
            "connection= is the synchronous side of an asynchronous connection of SQLAlchemy; pass the AsyncSession or "
            "AsyncConnection itself"
        )
    return await anyio.to_thread.run_sync(lambda: tuple(connection.execute(statement, values).one()))


def _is(connection: Any, module: str, *names: str) -> bool:
    """Whether it is of one of these classes; a module that nobody has imported has no instances."""
    found = sys.modules.get(module)
    kinds = tuple(kind for name in names if (kind := getattr(found, name, None)) is not None)
    return isinstance(connection, kinds)


def _psycopg_rows() -> Any:
    from psycopg.rows import tuple_row

    return tuple_row


def _sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of an error of any of the drivers."""
    for one in (error, getattr(error, "orig", None)):
        found = getattr(one, "sqlstate", None)
        if isinstance(found, str):
            return found
    return None


def _unknown(connection: Any) -> ConfigError:
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    # Django's names a wrapper, and the wrapper holds the driver's own connection.
    hint = "; of Django pass connection.connection" if kind.startswith("django.") else ""
    return ConfigError(f"connection= takes {_ACCEPTED}, not {kind}{hint}")
