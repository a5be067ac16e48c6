"""What waits for workers: the queue of an app's work."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from msgspec import Raw
from msgspec.json import encode

from hotmesh.core.state.job import Dimension
from hotmesh.core.state.step import WorkKey
from hotmesh.core.wire import dumps_text
from hotmesh.postgres.arrays import array, columns, text_array
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.rows import AnswerNotice, HeldWork, Next, next_from, work_from


class Wanted(NamedTuple):
    """What one worker takes of a topic: work of one workflow name; or any, but for the names that others here take."""

    topic: str
    workflow_name: str | None = None
    others: Sequence[str] = ()
    limit: int = 1
    """At most so much at a time."""
    since: datetime | None = None
    """What became visible then or later; None: all."""


class WorkQueue(Protocol):
    """The work of one app, for those who do it. `member`: who holds it; a reservation lasts `lease` seconds."""

    @property
    def database(self) -> Database:
        """Where it is."""
        ...

    def last_delivery(self, threshold: int) -> int:
        """The number of the delivery after which work is given up if nobody answers it: `threshold`, and at least 2."""
        ...

    async def claim(
        self,
        connection: Connection,
        member: str,
        wanted: Sequence[Wanted],
        lease: float,
        reservation: int,
        last: int | None = None,
    ) -> list[HeldWork]:
        """Reserve visible work, the oldest first. `reservation`: by which it can be given back.

        `last`: the number of the delivery that the caller makes alone, and after which it gives work up.
        """
        ...

    async def set_beside(self, connection: Connection, member: str, work: HeldWork, beside: bool) -> bool:
        """Note whether other work runs beside held work; whether it is still held."""
        ...

    async def next_at(
        self, connection: Connection, wanted: Sequence[Wanted], within: float | None = None
    ) -> Next:
        """When the next of such work becomes visible, if that is within so many seconds."""
        ...

    async def extend(
        self,
        connection: Connection,
        member: str,
        held: Sequence[WorkKey],
        lease: float,
        details: Sequence[str | None] | None = None,
    ) -> list[bool | None]:
        """Prolong reservations (generation, activity, address) to now + `lease`; which are still held; None: it is to end.

        `details`: what heartbeats have said, encoded.
        """
        ...

    async def answer(
        self,
        connection: Connection,
        member: str,
        answers: Sequence[tuple[str, str, Dimension, str, int, str | None]],
        wake: str,
    ) -> list[bool]:
        """Exchange held work for answers (generation, activity, address, status, code, data); which were held."""
        ...

    def notice(
        self, member: str, work: HeldWork, status: str, code: int, data: str | None
    ) -> tuple[str, str] | None:
        """The channel where the engine that sent held work hears of its answer, and what it is told there.

        None: it cannot be told. `data` is encoded.
        """
        ...

    async def tell(self, connection: Connection, notices: Sequence[tuple[str, str]]) -> None:
        """Tell engines answers. Nothing is written, and nobody knows whether they hear it."""
        ...

    async def still_held(
        self, connection: Connection, member: str, works: Sequence[HeldWork]
    ) -> list[bool | None]:
        """Which pieces of work are held by the reservations by which they were claimed; None: they are gone."""
        ...

    async def postpone(
        self,
        connection: Connection,
        member: str,
        postponed: Sequence[tuple[str, str, Dimension, float, bool, str | None, str | None]],
        wake: str | None,
    ) -> int:
        """Give held work back.

        (generation, activity, address, delay in seconds, whether it counts as a failure, its error, details of heartbeats).
        """
        ...

    async def give_back(
        self,
        connection: Connection,
        member: str,
        topics: Collection[str],
        reservations: Collection[int] | None = None,
    ) -> int:
        """Let everybody have the work of these topics that the member holds, all or by these reservations; how much."""
        ...

    async def bury(
        self,
        connection: Connection,
        member: str,
        work: HeldWork,
        reason: str,
        error: dict[str, Any],
        wake: str,
    ) -> str | None:
        """Move held work to the dead letters and answer its activity with the error.

        Which dead letter it is; None: it was not held any more.
        """
        ...


class OrdinaryWork:
    """The work of an app, by the app's own login. See WorkQueue."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def last_delivery(self, threshold: int) -> int:
        return max(threshold, 2)

    async def claim(
        self,
        connection: Connection,
        member: str,
        wanted: Sequence[Wanted],
        lease: float,
        reservation: int,
        last: int | None = None,
    ) -> list[HeldWork]:
        topics, names, others, limits, since = zip(*wanted, strict=True)
        rows = await connection.fetch(
            self.database.query("claim_work"),
            self.database.app_id,
            member,
            topics,
            limits,
            lease,
            reservation,
            names,
            [text_array(other) for other in others],
            last,
            since,
        )
        payload = self.database.payload
        return [work_from(row, payload) for row in rows]

    async def set_beside(self, connection: Connection, member: str, work: HeldWork, beside: bool) -> bool:
        return bool(
            await connection.fetchval(
                self.database.query("set_beside"),
                member,
                work.generation,
                work.activity_id,
                array(work.dimension),
                beside,
            )
        )

    async def next_at(
        self, connection: Connection, wanted: Sequence[Wanted], within: float | None = None
    ) -> Next:
        topics, names, others, _, since = zip(*wanted, strict=True)
        return next_from(
            await connection.fetchrow(
                self.database.query("next_work_at"),
                self.database.app_id,
                topics,
                names,
                [text_array(other) for other in others],
                since,
                within,
            )
        )

    async def extend(
        self,
        connection: Connection,
        member: str,
        held: Sequence[WorkKey],
        lease: float,
        details: Sequence[str | None] | None = None,
    ) -> list[bool | None]:
        return list(
            await connection.fetchval(
                self.database.query("extend_work"), member, *columns(held), lease, details
            )
        )

    async def answer(
        self,
        connection: Connection,
        member: str,
        answers: Sequence[tuple[str, str, Dimension, str, int, str | None]],
        wake: str,
    ) -> list[bool]:
        return list(
            await connection.fetchval(
                self.database.query("answer_work"), self.database.app_id, member, *columns(answers), wake
            )
        )

    def notice(
        self, member: str, work: HeldWork, status: str, code: int, data: str | None
    ) -> tuple[str, str] | None:
        if work.reply_channel is None or work.reservation is None or (data and len(data) > LONGEST_NOTICE):
            return None
        told = AnswerNotice(
            work.job_id,
            work.generation,
            work.activity_id,
            work.dimension,
            status,
            code,
            None if data is None else Raw(data.encode()),
            work.created_at,
            work.attempt,
            holder=member,
            reservation=work.reservation,
        )
        text = encode({"a": told})
        return (work.reply_channel, text.decode()) if len(text) < LONGEST_NOTICE else None

    async def tell(self, connection: Connection, notices: Sequence[tuple[str, str]]) -> None:
        channels, texts = zip(*notices, strict=True)
        await connection.fetch(self.database.query("tell"), channels, texts)

    async def still_held(
        self, connection: Connection, member: str, works: Sequence[HeldWork]
    ) -> list[bool | None]:
        keys = columns((*work.key, work.reservation) for work in works)
        rows = await connection.fetch(self.database.query("held_work"), member, *keys)
        return [row["held"] for row in rows]

    async def postpone(
        self,
        connection: Connection,
        member: str,
        postponed: Sequence[tuple[str, str, Dimension, float, bool, str | None, str | None]],
        wake: str | None,
    ) -> int:
        *keys, details = columns(postponed)
        return int(
            await connection.fetchval(
                self.database.query("postpone_work"), self.database.app_id, member, *keys, wake, details
            )
        )

    async def give_back(
        self,
        connection: Connection,
        member: str,
        topics: Collection[str],
        reservations: Collection[int] | None = None,
    ) -> int:
        return int(
            await connection.fetchval(
                self.database.query("give_back_work"),
                self.database.app_id,
                member,
                list(topics),
                None if reservations is None else list(reservations),
            )
        )

    async def bury(
        self,
        connection: Connection,
        member: str,
        work: HeldWork,
        reason: str,
        error: dict[str, Any],
        wake: str,
    ) -> str | None:
        number = await connection.fetchval(
            self.database.query("bury_work"),
            self.database.app_id,
            member,
            work.generation,
            work.activity_id,
            array(work.dimension),
            reason,
            dumps_text(error),
            wake,
        )
        return None if number is None else f"dead letter {number}"


LONGEST_NOTICE: Final = 7_900
"""Bytes; Postgres takes less than 8,000 in a notification."""


async def queue_depth(database: Database) -> list[Any]:
    """What waits, by `stream` (worker, engine, timer; dead) and `topic`: `ready`, `held`, `delayed`, `oldest` (seconds).

    Nothing by a worker login, which sees no queues.
    """
    return [] if database.login is not None else await database.rows("queue_depth", database.app_id)
