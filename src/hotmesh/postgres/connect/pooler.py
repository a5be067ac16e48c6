"""Finds out what stands between this process and Postgres, because a pooler can take away what a session keeps.

A pooler in transaction mode, such as PgBouncer, gives each transaction of a client another session. So a LISTEN is
lost without an error, and a statement prepared under a name may be gone, or be that of another client. PgBouncer
from 1.21 on keeps prepared statements (`max_prepared_statements`); nothing keeps a LISTEN.

None of these questions may use a prepared statement; the status of a plain one says how many rows it found.
"""

from __future__ import annotations

import secrets

import anyio

from hotmesh.postgres.connect.driver import Driver

LONGEST_WAY = 5.0
"""Seconds that a notification may take."""

_REPEAT = 0.5


async def is_behind_pooler(connection: Driver) -> bool:
    """Whether somebody else holds the session: a pooler answers with process ids of its own."""
    told = int(connection.get_server_pid())
    return not await _found(connection, f"select 1 where pg_backend_pid() = {told}")


async def keeps_statements(connection: Driver) -> bool:
    """Whether a pooler looks after prepared statements: then it gives them names of its own at the server."""
    name = f"hotmesh_{secrets.token_hex(8)}"
    async with connection.transaction():  # one session for all of it
        await connection.prepare("select 1", name=name)
        as_sent = f"select 1 from pg_catalog.pg_prepared_statements where name = '{name}'"  # noqa: S608
        if not await _found(connection, as_sent):
            return True
        await connection.execute(f'deallocate "{name}"')
        return False


async def hears(listener: Driver, sender: Driver, longest_way: float = LONGEST_WAY) -> bool:
    """Whether what is sent through one connection arrives at the other: same database, and a session that is kept.

    `longest_way`: seconds after which what has not arrived is lost.
    """
    channel = f"hotmesh:{secrets.token_hex(16)}"
    arrived = anyio.Event()

    def receive(*_: object) -> None:
        arrived.set()

    await listener.add_listener(channel, receive)
    try:
        with anyio.move_on_after(longest_way):
            while not arrived.is_set():
                await sender.execute(f'notify "{channel}"')
                with anyio.move_on_after(_REPEAT):
                    await arrived.wait()
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):
            await listener.remove_listener(channel, receive)
    return arrived.is_set()


async def _found(connection: Driver, query: str) -> bool:
    return await connection.execute(query) != "SELECT 0"
