"""What the members of a mesh share beside jobs: who is there, how fast they may go, what they tell each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hotmesh.errors import ActivationError
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.database import Database

LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True)
class Live:
    """The sessions of the members that listen at one moment."""

    engines: frozenset[int]
    others: frozenset[int]

    @property
    def all(self) -> frozenset[int]:
        return self.engines | self.others


@dataclass(frozen=True, slots=True)
class Rates:
    """Stored rates: of engines, of workers, and of workers of single topics. Milliseconds; -1 is a pause."""

    engines: int = 0
    workers: int = 0
    topics: dict[str, int] = field(default_factory=dict)


async def join_mesh(database: Database, connection: Driver, *, engine: bool) -> int | None:
    """Count this connection, which listens, among the members of the app as long as it lives; returns its session.

    None if somebody else has taken the lock for a purpose of his own: it is not counted then. A worker login never is.
    """
    if database.login is not None:
        return None
    session: int | None = await connection.fetchval(
        database.bound("select mesh.join_mesh($1, $2)"), database.app_id, engine
    )
    return session


async def take_guid(database: Database, connection: Driver, guid: str) -> int | None:
    """Let this connection, which listens, have the guid as long as it lives; the session that has it already, or None.

    Also lets the server find out within half a minute that the machine at the other end has died. A worker login has no
    guid that anybody could look for.
    """
    if database.login is not None:
        return None
    await connection.execute(KEEP_ALIVE)
    holder: int | None = await connection.fetchval(
        database.bound("select mesh.take_guid($1, $2)"), database.app_id, guid
    )
    return holder


KEEP_ALIVE = """
set tcp_keepalives_idle = 15; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3;
set tcp_user_timeout = 30000
"""
"""Seconds, but for the last: milliseconds. Of no effect on other lines than TCP."""


async def leave_mesh(database: Database, connection: Driver, guid: str, *, engine: bool) -> None:
    """Count it no longer, and let go of the guid; a connection of a user's pool may live on."""
    if database.login is not None:
        return
    await connection.execute(
        database.bound(
            "select pg_advisory_unlock_shared(mesh.member_key($1, $2)), pg_advisory_unlock(mesh.guid_key($1, $3))"
        ),
        database.app_id,
        engine,
        guid,
    )


async def live_members(database: Database) -> Live:
    """Who listens on the app's channel now."""
    async with database.connection() as connection:
        rows = await connection.fetch(database.bound("select * from mesh.live_members($1)"), database.app_id)
    engines = frozenset(row["session"] for row in rows if row["engine"])
    return Live(engines, frozenset(row["session"] for row in rows) - engines)


async def publish(database: Database, messages: Sequence[tuple[str, str]], limit: int) -> None:
    """Send messages (channel, text); one of more than `limit` bytes is stored, and read by who hears of it."""
    channels, texts = zip(*messages, strict=True)
    async with database.connection() as connection:
        await connection.execute(
            database.bound("select mesh.publish_messages($1, $2, $3, $4)"),
            database.app_id,
            channels,
            texts,
            limit,
        )


async def stored_message(database: Database, number: int) -> str | None:
    """The text of a message that was stored because of its size; None if its time is over."""
    async with database.connection() as connection:
        text = await connection.fetchval(
            database.bound("select mesh.stored_message($1, $2)"), database.app_id, number
        )
    return None if text is None else str(text)


async def stored_answers(database: Database, question: str) -> list[str]:
    """The texts of the messages that were stored for who asked this question, and hears nothing."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            database.bound(
                "select q.message from mesh.quorum_message as q "
                "where q.app_id = $1 and q.expires_at > mesh.clock() and strpos(q.message, $2) > 0"
            ),
            database.app_id,
            question,
        )
    return [row["message"] for row in rows]


async def read_rates(database: Database) -> Rates:
    """The rates that are stored for the app."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            database.query("throttles" if database.login is None else "worker_throttles"), database.app_id
        )
    found = {(row["scope"], row["topic"]): row["rate"] for row in rows}
    topics = {topic: rate for (_, topic), rate in found.items() if topic}
    return Rates(found.get(("engines", ""), 0), found.get(("workers", ""), 0), topics)


async def store_rate(
    database: Database, scopes: Collection[str], topic: str | None, rate: int, message: str
) -> None:
    """Store a rate, and send the message in the same transaction."""
    async with database.connection() as connection:
        await connection.execute(
            database.bound("select mesh.set_throttle($1, $2, $3, $4, $5)"),
            database.app_id,
            list(scopes),
            topic,
            rate,
            message,
        )


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
                    await connection.execute(
                        database.bound("select pg_advisory_unlock(mesh.activation_key($1))"), database.app_id
                    )
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
    take = "pg_advisory_xact_lock" if in_transaction else "pg_advisory_lock"
    try:
        await connection.execute(
            database.bound(f"select {take}(mesh.activation_key($1))"),
            database.app_id,
        )
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
            database.bound("select mesh.activate_version($1, $2, $3, $4)"),
            database.app_id,
            version,
            checksum,
            wake,
        )
    )
