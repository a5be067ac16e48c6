"""Who may activate a version of an app, and for how long; and the switch itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hotmesh.errors import ActivationError
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.database import Database

LOCK_NOT_AVAILABLE = "55P03"


@asynccontextmanager
async def activating(database: Database, wait: float, longest: float) -> AsyncIterator[Driver]:
    """The right to activate a version, held by the session of this connection: it ends with it, however it ends.

    Raises ActivationError if another session has it for more than `wait` seconds. A session that says nothing for
    `longest` seconds is ended by the server, so that a process which stands still keeps it no longer than that.
    """
    if not database.keeps_sessions:
        async with activating_in_transaction(database, wait, longest) as connection:
            yield connection
        return
    link = database.session_link("activation", held=wait + longest)
    try:
        async with link.use() as connection:
            await _take(database, connection, wait, longest)
            try:
                yield connection
            finally:
                if not connection.is_closed():
                    await connection.execute(database.query("release_activation"), database.app_id)
    finally:
        await link.close()


@asynccontextmanager
async def activating_in_transaction(database: Database, wait: float, longest: float) -> AsyncIterator[Driver]:
    """As `activating` where a pooler keeps no session: the right belongs to a transaction, which ends with the block."""
    link = database.link("activation", held=wait + longest)
    try:
        async with link.use() as connection, connection.transaction():
            await _take(database, connection, wait, longest, in_transaction=True)
            yield connection
    finally:
        await link.close()


async def _take(
    database: Database, connection: Driver, wait: float, longest: float, *, in_transaction: bool = False
) -> None:
    silence = "idle_in_transaction_session_timeout" if in_transaction else "idle_session_timeout"
    await connection.execute(
        "select set_config('lock_timeout', $1, $4), set_config($2, $3, $4)",
        f"{max(int(wait * 1000), 1)}ms",
        silence,
        f"{int(longest * 1000)}ms",
        in_transaction,
    )
    take = "take_activation_in_transaction" if in_transaction else "take_activation"
    try:
        await connection.execute(database.query(take), database.app_id)
    except Exception as error:
        if getattr(error, "sqlstate", None) == LOCK_NOT_AVAILABLE:
            raise ActivationError(
                f"another activation of app {database.app_id} has been under way for more than {wait:g} s; try again"
            ) from error
        raise


async def switch(database: Database, connection: Driver, version: str, checksum: str, wake: str) -> str:
    """Make a version the active one: `activated`, or why not (`missing`, `changed`, `busy`)."""
    return str(
        await connection.fetchval(
            database.query("activate_version"),
            database.app_id,
            version,
            checksum,
            wake,
        )
    )
