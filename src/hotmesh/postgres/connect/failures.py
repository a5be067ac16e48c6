"""What the driver's errors mean, and how long to pause after one.

They are turned into ours here and nowhere else, by type and SQLSTATE.
"""

from __future__ import annotations

import random
from types import TracebackType

import asyncpg

from hotmesh.errors import (
    CodecError,
    ConnectionLostError,
    DatabaseError,
    HotMeshError,
    NotAuthorizedError,
    SchemaError,
)

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.exceptions.InternalClientError)

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


def backoff(failures: int, *, longest: float) -> float:
    """Seconds to pause after so many failures in a row: from 0.1 doubled to `longest`, up to a fifth less by chance.

    By chance, so that processes that lost the same server do not come back to it in step.
    """
    return float(min(0.1 * 2.0 ** min(failures, 16), longest) * (1 - random.random() / 5))  # noqa: S311 - no secret
