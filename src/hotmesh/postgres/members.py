"""What the members of a mesh share beside jobs: who is there, how fast they may go, what they tell each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.database import Database


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
    session: int | None = await connection.fetchval(database.query("join_mesh"), database.app_id, engine)
    return session


async def take_guid(database: Database, connection: Driver, guid: str, *, engine: bool = False) -> int | None:
    """Let this connection, which listens, have the guid as long as it lives; the session that has it already, or None.

    Also lets the server find out within half a minute that the machine at the other end has died. A worker login has no
    guid that anybody could look for.
    """
    if database.login is not None:
        return None
    await connection.execute(KEEP_ALIVE)
    holder: int | None = await connection.fetchval(database.query("take_guid"), database.app_id, guid, engine)
    return holder


async def gone_members(database: Database, connection: Driver) -> frozenset[str]:
    """The guids of members that have died, and that nobody has dealt with yet."""
    rows = await connection.fetch(database.query("gone_members"), database.app_id)
    return frozenset(row["guid"] for row in rows)


async def count_members(database: Database, connection: Driver) -> tuple[int, int]:
    """How many engines the app has, and how many members in all. A worker login is not told: it counts as alone."""
    if database.login is not None:
        return 0, 1
    row = await connection.fetchrow(database.query("count_members"), database.app_id)
    return (0, 1) if row is None else (row["engines"], row["members"])


async def give_back_gone(
    database: Database, connection: Driver, guids: Collection[str]
) -> list[tuple[str, int]]:
    """Let others have what these members held, unless they have come back; which were gone, and how much each held."""
    rows = await connection.fetch(database.query("give_back_gone"), database.app_id, list(guids))
    return [(row["guid"], row["held"]) for row in rows]


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
        database.query("leave_mesh"),
        database.app_id,
        engine,
        guid,
    )


async def live_members(database: Database) -> Live:
    """Who listens on the app's channel now."""
    async with database.connection() as connection:
        rows = await connection.fetch(database.query("live_members"), database.app_id)
    engines = frozenset(row["session"] for row in rows if row["engine"])
    return Live(engines, frozenset(row["session"] for row in rows) - engines)


async def publish(database: Database, messages: Sequence[tuple[str, str]], limit: int) -> None:
    """Send messages (channel, text); one of more than `limit` bytes is stored, and read by who hears of it."""
    channels, texts = zip(*messages, strict=True)
    async with database.connection() as connection:
        await connection.execute(
            database.query("publish_messages"),
            database.app_id,
            channels,
            texts,
            limit,
        )


async def stored_message(database: Database, number: int) -> str | None:
    """The text of a message that was stored because of its size; None if its time is over."""
    async with database.connection() as connection:
        text = await connection.fetchval(database.query("stored_message"), database.app_id, number)
    return None if text is None else str(text)


async def stored_answers(database: Database, question: str) -> list[str]:
    """The texts of the messages that were stored for who asked this question, and hears nothing."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            database.query("stored_answers"),
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
            database.query("set_throttle"),
            database.app_id,
            list(scopes),
            topic,
            rate,
            message,
        )
