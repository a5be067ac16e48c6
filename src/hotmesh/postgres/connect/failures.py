"""What the driver's errors mean, and how long to pause after one.

They are turned into ours here and nowhere else, by type and SQLSTATE.
"""

from __future__ import annotations

import random
from types import TracebackType
from typing import Final, Literal

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


Fault = Literal["values", "database", "either"]

_OF_VALUES: Final = ("22", "23")
"""Classes of SQLSTATE that blame what was to be written: data exceptions, constraints."""

_OF_EITHER: Final = ("0A", "21", "2F", "38", "39", "42", "44", "54", "P0", "XX")
"""Classes that do not tell: a value over a limit and a server at its limit are both 54000."""


def fault(error: BaseException) -> Fault:
    """Whose fault it is that something was not written: what was to be written, the database as it is now, or unknown.

    What is the database's passes: a lock, a full disk, a right that is missing, a statement that somebody cancelled; a codec,
    too, may lack its key for a while. It is never held against a step. What is nothing of the database's, as a value that
    could not even be sent, is the fault of the values.
    """
    if isinstance(error, CodecError):
        return "database"
    if not isinstance(error, DatabaseError):
        return "values"
    kind = error.sqlstate[:2] if isinstance(error, StatementError) else ""
    if kind in _OF_VALUES:
        return "values"
    return "either" if kind in _OF_EITHER else "database"


def passing(error: BaseException) -> bool:
    """Whether it is surely the state of the database that refuses something, and passes."""
    return fault(error) == "database"


def id_is_held(error: BaseException) -> bool:
    """Whether the id of a job to be created is in a transaction of somebody's that has not ended yet."""
    return getattr(error, "sqlstate", None) == "55P03"


def backoff(failures: int, *, longest: float) -> float:
    """Seconds to pause after so many failures in a row: from 0.1 doubled to `longest`, up to a fifth less by chance.

    By chance, so that processes that lost the same server do not come back to it in step.
    """
    return float(min(0.1 * 2.0 ** min(failures, 16), longest) * (1 - random.random() / 5))  # noqa: S311 - no secret
