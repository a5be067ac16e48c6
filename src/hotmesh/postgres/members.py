"""What the members of a mesh share beside jobs: who is there, how fast they may go, what they tell each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hotmesh.errors import ActivationError
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.store import Store

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


async def join_mesh(store: Store, connection: Driver, *, engine: bool) -> int | None:
    """Count this connection, which listens, among the members of the app as long as it lives; returns its session.

    None if somebody else has taken the lock for a purpose of his own: it is not counted then. A worker login never is.
    """
    if not store.joins:
        return None
    session: int | None = await connection.fetchval(
        store.bound("select mesh.join_mesh($1, $2)"), store.app_id, engine
    )
    return session


async def take_guid(store: Store, connection: Driver, guid: str) -> int | None:
    """Let this connection, which listens, have the guid as long as it lives; the session that has it already, or None.

    Also lets the server find out within half a minute that the machine at the other end has died. A worker login has no
    guid that anybody could look for.
    """
    if not store.joins:
        return None
    await connection.execute(KEEP_ALIVE)
    holder: int | None = await connection.fetchval(
        store.bound("select mesh.take_guid($1, $2)"), store.app_id, guid
    )
    return holder


KEEP_ALIVE = """
set tcp_keepalives_idle = 15; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3;
set tcp_user_timeout = 30000
"""
"""Seconds, but for the last: milliseconds. Of no effect on other lines than TCP."""


async def leave_mesh(store: Store, connection: Driver, guid: str, *, engine: bool) -> None:
    """Count it no longer, and let go of the guid; a connection of a user's pool may live on."""
    if not store.joins:
        return
    await connection.execute(
        store.bound(
            "select pg_advisory_unlock_shared(mesh.member_key($1, $2)), pg_advisory_unlock(mesh.guid_key($1, $3))"
        ),
        store.app_id,
        engine,
        guid,
    )


async def live_members(store: Store) -> Live:
    """Who listens on the app's channel now."""
    async with store.connection() as connection:
        rows = await connection.fetch(store.bound("select * from mesh.live_members($1)"), store.app_id)
    engines = frozenset(row["session"] for row in rows if row["engine"])
    return Live(engines, frozenset(row["session"] for row in rows) - engines)


async def publish(store: Store, messages: Sequence[tuple[str, str]], limit: int) -> None:
    """Send messages (channel, text); one of more than `limit` bytes is stored, and read by who hears of it."""
    channels, texts = zip(*messages, strict=True)
    async with store.connection() as connection:
        await connection.execute(
            store.bound("select mesh.publish_messages($1, $2, $3, $4)"), store.app_id, channels, texts, limit
        )


async def stored_message(store: Store, number: int) -> str | None:
    """The text of a message that was stored because of its size; None if its time is over."""
    async with store.connection() as connection:
        text = await connection.fetchval(
            store.bound("select mesh.stored_message($1, $2)"), store.app_id, number
        )
    return None if text is None else str(text)


async def stored_answers(store: Store, question: str) -> list[str]:
    """The texts of the messages that were stored for who asked this question, and hears nothing."""
    async with store.connection() as connection:
        rows = await connection.fetch(
            store.bound(
                "select q.message from mesh.quorum_message as q "
                "where q.app_id = $1 and q.expires_at > mesh.clock() and strpos(q.message, $2) > 0"
            ),
            store.app_id,
            question,
        )
    return [row["message"] for row in rows]


async def read_rates(store: Store) -> Rates:
    """The rates that are stored for the app."""
    async with store.connection() as connection:
        rows = await connection.fetch(store.bound(store.rates), store.app_id)
    found = {(row["scope"], row["topic"]): row["rate"] for row in rows}
    topics = {topic: rate for (_, topic), rate in found.items() if topic}
    return Rates(found.get(("engines", ""), 0), found.get(("workers", ""), 0), topics)


async def store_rate(
    store: Store, scopes: Collection[str], topic: str | None, rate: int, message: str
) -> None:
    """Store a rate, and send the message in the same transaction."""
    async with store.connection() as connection:
        await connection.execute(
            store.bound("select mesh.set_throttle($1, $2, $3, $4, $5)"),
            store.app_id,
            list(scopes),
            topic,
            rate,
            message,
        )


@asynccontextmanager
async def activating(store: Store, wait: float, longest: float) -> AsyncIterator[Driver]:
    """The right to activate a version, held by the session of this connection: it ends with it, however it ends.

    Raises ActivationError if another session has it for more than `wait` seconds. A session that says nothing for
    `longest` seconds is ended by the server, so that a process which stands still keeps it no longer than that.
    """
    if not store.keeps_sessions:
        async with activating_in_transaction(store, wait, longest) as connection:
            yield connection
        return
    link = store.session_link("activation", held=wait + longest)
    try:
        async with link.use() as connection:
            await _take(store, connection, wait, longest)
            try:
                yield connection
            finally:
                if not connection.is_closed():
                    await connection.execute(
                        store.bound("select pg_advisory_unlock(mesh.activation_key($1))"), store.app_id
                    )
    finally:
        await link.close()


@asynccontextmanager
async def activating_in_transaction(store: Store, wait: float, longest: float) -> AsyncIterator[Driver]:
    """As `activating` where a pooler keeps no session: the right belongs to a transaction, which ends with the block."""
    link = store.link("activation", held=wait + longest)
    try:
        async with link.use() as connection, connection.transaction():
            await _take(store, connection, wait, longest, in_transaction=True)
            yield connection
    finally:
        await link.close()


async def _take(
    store: Store, connection: Driver, wait: float, longest: float, *, in_transaction: bool = False
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
            store.bound(f"select {take}(mesh.activation_key($1))"),
            store.app_id,
        )
    except Exception as error:
        if getattr(error, "sqlstate", None) == LOCK_NOT_AVAILABLE:
            raise ActivationError(
                f"another activation of app {store.app_id} has been under way for more than {wait:g} s; try again"
            ) from error
        raise


async def switch(store: Store, connection: Driver, version: str, checksum: str, wake: str) -> str:
    """Make a version the active one: `activated`, or why not (`missing`, `changed`, `busy`)."""
    return str(
        await connection.fetchval(
            store.bound("select mesh.activate_version($1, $2, $3, $4)"),
            store.app_id,
            version,
            checksum,
            wake,
        )
    )
