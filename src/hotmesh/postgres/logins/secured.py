"""The store of a worker with a worker login: the same calls, through the procedures that are made for such logins.

It reads no table and writes none. What the login may do is told by `worker_hello`, and enforced by the database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hotmesh.core.codec import Codec
from hotmesh.core.state.job import Dimension
from hotmesh.core.wire import dumps_text
from hotmesh.errors import NotAuthorizedError
from hotmesh.postgres import sql
from hotmesh.postgres.arrays import array, text_array
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.connect.failures import translated
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.rows import HeldWork, work_from
from hotmesh.postgres.store import Store


@dataclass(frozen=True, slots=True)
class WorkerLogin:
    """What a worker login may do; durations in seconds."""

    app_id: str
    topics: frozenset[str]
    channel: str
    longest_lease: float
    longest_hold: float
    longest_delay: float
    max_payload: int


_IS_RESTRICTED = """
select exists (
    select from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
     where n.nspname = $1 and p.proname = 'worker_hello' and pg_catalog.has_function_privilege(p.oid, 'execute'))
 and not exists (
    select from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = 'job' and pg_catalog.has_table_privilege(c.oid, 'select'))
"""


async def find_login(source: ConnectionSource, schema: str, *, required: bool) -> WorkerLogin | None:
    """What this login may do if it is a worker login of the namespace; None if it is another one.

    Raises NotAuthorizedError if it is another one and `required`.
    """
    connection = await source.connect()
    try:
        with translated():
            if not await connection.fetchval(_IS_RESTRICTED, schema):
                if required:
                    raise NotAuthorizedError(
                        f"this login is no worker login of namespace {schema}: provision one, or leave out secured=True"
                    )
                return None
            row = await connection.fetchrow(sql.bind("select * from mesh.worker_hello()", schema))
    finally:
        await source.release(connection)
    if row is None:
        raise AssertionError("worker_hello answers with one row")
    return WorkerLogin(
        row["app_id"],
        frozenset(row["topics"]),
        row["channel"],
        row["longest_lease"],
        row["longest_hold"],
        row["longest_delay"],
        row["max_payload"],
    )


class SecuredStore(Store):
    """What workers need of a store, for one worker login. Everything else raises NotAuthorizedError, by Postgres."""

    joins = False
    rates = "select * from mesh.worker_throttles() where $1::text is not null"

    def __init__(
        self,
        source: ConnectionSource,
        schema: str,
        app_id: str,
        login: WorkerLogin,
        codec: Callable[[], Codec | None],
        *,
        patience: float | None = None,
        task_queue: str | None = None,
    ) -> None:
        super().__init__(source, schema, app_id, codec, patience=patience, task_queue=task_queue)
        self.login = login

    @asynccontextmanager
    async def _general(self) -> AsyncIterator[Driver]:
        try:
            async with super()._general() as connection:
                yield connection
        except NotAuthorizedError as error:
            raise NotAuthorizedError(
                f"{error.__cause__ or error}; this is a worker login, which may take and answer work of its topics and "
                "nothing else: use an instance with the app's own login"
            ) from error

    async def claim_work(
        self, connection: Driver, member: str, limits: dict[str, int], lease: float, reservation: int
    ) -> list[HeldWork]:
        wanted = [(topic, None, (), limit) for topic, limit in limits.items()]
        return await self.claim_named_work(connection, member, wanted, lease, reservation)

    async def claim_named_work(
        self,
        connection: Driver,
        member: str,
        wanted: Sequence[tuple[str, str | None, Sequence[str], int]],
        lease: float,
        reservation: int,
    ) -> list[HeldWork]:
        topics, names, others, limits = zip(*wanted, strict=True)
        rows = await connection.fetch(
            self.bound("select * from mesh.worker_claim($1, $2, $3, $4, $5, $6, $7)"),
            member,
            topics,
            names,
            [text_array(other) for other in others],
            limits,
            lease,
            reservation,
        )
        payload = self.payload
        return [work_from(row, payload) for row in rows]

    async def next_work_at(self, connection: Driver, topics: Collection[str]) -> float | None:
        return await self.next_named_work_at(connection, [(topic, None, ()) for topic in topics])

    async def next_named_work_at(
        self, connection: Driver, wanted: Sequence[tuple[str, str | None, Sequence[str]]]
    ) -> float | None:
        topics, names, others = zip(*wanted, strict=True)
        value = await connection.fetchval(
            self.bound("select mesh.worker_next_at($1, $2, $3)"),
            topics,
            names,
            [text_array(other) for other in others],
        )
        return None if value is None else float(value)

    async def answer_work(
        self,
        connection: Driver,
        member: str,
        answers: Sequence[tuple[str, str, Dimension, str, int, str | None]],
        wake: str,
    ) -> list[bool]:
        del wake
        generations, activities, dimensions, statuses, codes, data = zip(*answers, strict=True)
        return list(
            await connection.fetchval(
                self.bound("select mesh.worker_answer($1, $2, $3, $4, $5, $6, $7)"),
                member,
                generations,
                activities,
                [array(dimension) for dimension in dimensions],
                statuses,
                codes,
                data,
            )
        )

    async def postpone_work(
        self,
        connection: Driver,
        member: str,
        postponed: Sequence[tuple[str, str, Dimension, float, bool]],
        wake: str | None,
    ) -> int:
        del wake
        generations, activities, dimensions, delays, retries = zip(*postponed, strict=True)
        return int(
            await connection.fetchval(
                self.bound("select mesh.worker_postpone($1, $2, $3, $4, $5, $6)"),
                member,
                generations,
                activities,
                [array(dimension) for dimension in dimensions],
                [min(delay, self.login.longest_delay) for delay in delays],
                retries,
            )
        )

    async def give_back_work(
        self,
        connection: Driver,
        member: str,
        topics: Collection[str],
        reservations: Collection[int] | None = None,
    ) -> int:
        del topics
        return int(
            await connection.fetchval(
                self.bound("select mesh.worker_give_back($1, $2)"),
                member,
                None if reservations is None else list(reservations),
            )
        )

    async def bury_work(
        self, connection: Driver, member: str, work: HeldWork, reason: str, error: dict[str, Any], wake: str
    ) -> bool:
        del wake
        return bool(
            await connection.fetchval(
                self.bound("select mesh.worker_bury($1, $2, $3, $4, $5, $6)"),
                member,
                work.generation,
                work.activity_id,
                array(work.dimension),
                reason,
                dumps_text(error),
            )
        )

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
        wake: str,
    ) -> str:
        del wake
        return str(
            await self._value(
                "select mesh.worker_add($1, $2, $3, $4, $5, $6, $7, $8)",
                job_id,
                generation,
                activity_id,
                array(dimension),
                guid,
                status,
                code,
                data,
            )
        )

    async def extend_work(
        self, connection: Driver, member: str, held: Sequence[tuple[str, str, Dimension]], lease: float
    ) -> list[bool]:
        generations, activities, dimensions = zip(*held, strict=True)
        return list(
            await connection.fetchval(
                self.bound("select mesh.worker_extend($1, $2, $3, $4, $5)"),
                member,
                generations,
                activities,
                [array(dimension) for dimension in dimensions],
                lease,
            )
        )

    async def queue_depth(self) -> list[Any]:
        """Nothing: a worker login sees no queues."""
        return []

    async def channel(self, connection: Driver) -> str:
        del connection
        return self.login.channel
