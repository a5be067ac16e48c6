"""The work of an app for a worker login: the same calls, through the procedures that are made for such logins.

They read no table and write none. What the login may do is told by `worker_hello`, and enforced by the database.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from hotmesh.core.state.job import Dimension
from hotmesh.core.state.step import WorkKey
from hotmesh.core.wire import dumps_text
from hotmesh.postgres.arrays import array, columns, text_array
from hotmesh.postgres.database import Connection, Database
from hotmesh.postgres.logins.login import WorkerLogin
from hotmesh.postgres.rows import HeldWork, Next, next_from, work_from
from hotmesh.postgres.work import OrdinaryWork, Wanted, WorkQueue


def work_queue(database: Database) -> WorkQueue:
    """The work of the app, as the login of this database may take it."""
    return OrdinaryWork(database) if database.login is None else LoginWork(database, database.login)


class LoginWork:
    """See WorkQueue. Who is to be woken is known to the procedures themselves."""

    def __init__(self, database: Database, login: WorkerLogin) -> None:
        self.database = database
        self._login = login

    def last_delivery(self, threshold: int) -> int:
        # Whatever comes first: the login's own bound is that of the database.
        return max(min(threshold, self._login.most_deliveries), 2)

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
            self.database.query("worker_claim"),
            member,
            topics,
            names,
            [text_array(other) for other in others],
            limits,
            lease,
            reservation,
            last,
            since,
        )
        payload = self.database.payload
        return [work_from(row, payload) for row in rows]

    async def set_beside(self, connection: Connection, member: str, work: HeldWork, beside: bool) -> bool:
        return bool(
            await connection.fetchval(
                self.database.query("worker_set_beside"),
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
                self.database.query("worker_next_at"),
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
        del details  # those of activities, which such a login does not run
        return list(
            await connection.fetchval(self.database.query("worker_extend"), member, *columns(held), lease)
        )

    async def answer(
        self,
        connection: Connection,
        member: str,
        answers: Sequence[tuple[str, str, Dimension, str, int, str | None]],
        wake: str,
    ) -> list[bool]:
        del wake
        return list(
            await connection.fetchval(self.database.query("worker_answer"), member, *columns(answers))
        )

    def notice(
        self, member: str, work: HeldWork, status: str, code: int, data: str | None
    ) -> tuple[str, str] | None:
        # What a login answers is checked by `worker_answer`, and goes no other way.
        return None

    async def tell(self, connection: Connection, notices: Sequence[tuple[str, str]]) -> None:
        raise AssertionError("a worker login tells nothing")

    async def still_held(
        self, connection: Connection, member: str, works: Sequence[HeldWork]
    ) -> list[bool | None]:
        raise AssertionError("a worker login tells nothing")

    async def add_answer(
        self,
        job_id: str,
        generation: str,
        activity_id: str,
        dimension: Dimension,
        guid: str,
        status: str,
        code: int,
        data: str,
    ) -> str:
        """Add an answer to an activity that this login answered with "pending": sent, duplicate, closed; held: it has still to do so."""
        return str(
            await self.database.value(
                "worker_add", job_id, generation, activity_id, array(dimension), guid, status, code, data
            )
        )

    async def postpone(
        self,
        connection: Connection,
        member: str,
        postponed: Sequence[tuple[str, str, Dimension, float, bool, str | None, str | None]],
        wake: str | None,
    ) -> int:
        del wake
        *keys, delays, retries, errors, _ = columns(postponed)
        return int(
            await connection.fetchval(
                self.database.query("worker_postpone"),
                member,
                *keys,
                [min(delay, self._login.longest_delay) for delay in delays],
                retries,
                errors,
            )
        )

    async def give_back(
        self,
        connection: Connection,
        member: str,
        topics: Collection[str],
        reservations: Collection[int] | None = None,
    ) -> int:
        del topics
        return int(
            await connection.fetchval(
                self.database.query("worker_give_back"),
                member,
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
        del wake
        held = await connection.fetchval(
            self.database.query("worker_bury"),
            member,
            work.generation,
            work.activity_id,
            array(work.dimension),
            reason,
            dumps_text(error),
        )
        # A login sees no dead letters, not even their numbers.
        return "a dead letter" if held else None
