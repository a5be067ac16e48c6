"""What an app keeps in Postgres, as calls: each method is one statement, most of them one stored function."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from weakref import WeakSet

import anyio
import msgspec

from hotmesh.core.codec import CLEAR, OPAQUE, Codec, Payload
from hotmesh.core.state.job import Dimension, Job, MessageReceipt, TimerReceipt, WorkReceipt
from hotmesh.core.state.step import Consumed, Signal, WorkKey
from hotmesh.core.wire import dumps_text, loads
from hotmesh.errors import CodecError, ConnectionLostError, DatabaseError
from hotmesh.postgres import sql
from hotmesh.postgres.arrays import array, text_array
from hotmesh.postgres.connect import sharing
from hotmesh.postgres.connect.driver import Driver
from hotmesh.postgres.connect.failures import StatementError
from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.connect.source import ConnectionSource
from hotmesh.postgres.rows import DueEvent, HeldWork, events_from, job_from, records_from, work_from
from hotmesh.postgres.sections import COMMIT
from hotmesh.postgres.steps import NOBODY, Batch, Committed

logger = logging.getLogger("hotmesh.postgres")


class AnsweredElsewhereError(Exception):
    """A row that a step answers is gone: its lease was lost, or another process was first."""


GONE = "MS002"
"""The SQLSTATE of that."""


UNUSED = 30.0
"""Seconds after which a connection that is not needed is closed."""


class DueJob:
    """A job locked in the current transaction, with the events that are due.

    One that cannot be decoded here has none, and `unreadable` says why.
    """

    __slots__ = ("events", "job", "unreadable")

    def __init__(self, job: Job, events: list[DueEvent], unreadable: CodecError | None = None) -> None:
        self.job = job
        self.events = events
        self.unreadable = unreadable


def _due_job(row: Any, payload: Payload) -> DueJob:
    try:
        return DueJob(job_from(row, payload), events_from(row["events"], payload) if row["events"] else [])
    except CodecError as error:
        return DueJob(job_from(row, OPAQUE), [], error)


def _no_codec() -> None:
    """Values are stored as they are."""


class Store:
    """One app in one schema. Methods that take no connection share a general one."""

    joins = True
    """Whether who listens counts as a member of the mesh."""

    rates = "select * from mesh.throttles($1)"
    """The statement that reads the rates of an app."""

    def __init__(
        self,
        source: ConnectionSource,
        schema: str,
        app_id: str,
        codec: Callable[[], Codec | None] = _no_codec,
        *,
        patience: float | None = None,
        task_queue: str | None = None,
    ) -> None:
        """`patience`: seconds after which a silent database counts as lost, and how long a call waits for one.

        Stores of the same `task_queue`, source and patience share their general connection.
        """
        self.source = source
        self._codec = codec
        self._payload = CLEAR
        self._patience = patience
        self.schema = schema
        self.app_id = app_id

        def calls() -> Link:
            return Link(source, name="calls", patience=patience, wait=patience or 0.0)

        alone = task_queue is None
        self._link = calls() if alone else sharing.share(task_queue, (Link, source.ways, patience), calls)
        self.links = WeakSet((self._link,))
        """Every connection of the instance but the one that listens."""
        self._closed = False
        self._sql: dict[str, str] = {}

    @property
    def payload(self) -> Payload:
        """How user values are written and read now; the codec may be changed at any time."""
        codec = self._codec()
        if codec is not self._payload.codec:
            self._payload = Payload(codec)
        return self._payload

    def link(self, name: str, *, held: float = 0.0) -> Link:
        """A further dedicated connection, whose answers may take `held` seconds more than those of others."""
        link = Link(self.source, name=name, patience=self._patient(held))
        self.links.add(link)
        return link

    @property
    def keeps_sessions(self) -> bool:
        """Whether there is a way to Postgres on which a session is kept."""
        return self.source.direct is not None

    def session_link(self, name: str, *, held: float = 0.0) -> Link:
        """As `link`, for what belongs to a session: where there is no such way, the one there is."""
        return Link(self.source.direct or self.source, name=name, patience=self._patient(held))

    def _patient(self, held: float) -> float | None:
        return None if self._patience is None else self._patience + held

    async def close(self) -> None:
        """Close the general connection, for good: nobody is left who would close another one."""
        self._closed = True
        await sharing.give_back(self._link)

    async def close_unused(self) -> None:
        """Close connections that nobody has used for a while, until cancelled; the next use opens another."""
        while True:
            await anyio.sleep(UNUSED / 3)
            for link in list(self.links):
                try:
                    await link.close_if_idle(UNUSED)
                except DatabaseError as error:
                    logger.warning(
                        "connection not closed", extra={"connection": link.name, "error": str(error)}
                    )

    def bound(self, statement: str) -> str:
        """The statement with the schema put in; the same text each time, so that it is prepared once."""
        found = self._sql.get(statement)
        if found is None:
            found = self._sql[statement] = sql.bind(statement, self.schema)
        return found

    def _general(self) -> AbstractAsyncContextManager[Driver]:
        if self._closed:
            raise ConnectionLostError(f"this instance of app {self.app_id} has stopped")
        return self._link.use()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Driver]:
        """The general connection; see `Link.use`."""
        async with self._general() as connection:
            yield connection

    async def _value(self, statement: str, *arguments: Any) -> Any:
        async with self._general() as connection:
            return await connection.fetchval(self.bound(statement), *arguments)

    async def _rows(self, statement: str, *arguments: Any) -> list[Any]:
        """The rows of a statement that only reads: if its connection breaks, it is asked once more."""
        try:
            async with self._general() as connection:
                return await connection.fetch(self.bound(statement), *arguments)
        except ConnectionLostError:
            async with self._general() as connection:
                return await connection.fetch(self.bound(statement), *arguments)

    # -- steps -------------------------------------------------------------------------------------------

    async def commit(
        self,
        connection: Driver,
        batch: Batch,
        member: str,
        epoch: int,
        token: int,
        lease: float,
        wake: str | None,
        *,
        watched: Sequence[str] = (),
    ) -> Committed:
        """Write a batch of steps. Raises AnsweredElsewhereError if any of them answers a row that is gone.

        `watched`: jobs whose work items are to be reported as this commit leaves them, which makes it a transaction of
        several statements.
        """
        if not watched:
            return await self._commit(connection, batch, member, epoch, token, lease, wake)
        async with connection.transaction():
            committed = await self._commit(connection, batch, member, epoch, token, lease, wake)
            rows = await connection.fetch(
                self.bound(
                    "select e.workflow_id, to_json(e)::text as row from mesh.escalation as e "
                    "where e.app_id = $1 and e.workflow_id = any($2) and e.updated_at = $3 "
                    # What has ended, before what began with its end.
                    "order by e.created_at, e.id"
                ),
                self.app_id,
                watched,
                committed.committed_at,
            )
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            found.setdefault(row["workflow_id"], []).append(self._escalation(row["row"]))
        return msgspec.structs.replace(committed, escalations=found)

    async def _commit(
        self,
        connection: Driver,
        batch: Batch,
        member: str,
        epoch: int,
        token: int,
        lease: float,
        wake: str | None,
    ) -> Committed:
        arguments = batch.arguments(self.app_id, member, epoch, token, lease, wake)
        try:
            row = await connection.fetchrow(self.bound(COMMIT), *arguments)
        except Exception as error:
            if getattr(error, "sqlstate", None) == GONE:
                raise AnsweredElsewhereError from error
            raise
        if row is None:
            raise AssertionError("commit_steps answers with one row")
        refused = {
            number: (reason, taken)
            for number, reason, taken in zip(row["refused"], row["reasons"], row["taken"], strict=True)
        }
        return Committed(
            refused,
            row["epoch"],
            row["woken"],
            _listeners(row["listeners"], row["heard"]) if row["listeners"] else NOBODY,
            row["committed_at"],
            frozenset(row["held"] or ()),
        )

    async def cancelled_here(self, connection: Driver, job_id: str) -> list[dict[str, Any]]:
        """The job's work items that the current transaction has cancelled."""
        rows = await connection.fetch(
            self.bound(
                "select to_json(e)::text as row from mesh.escalation as e where e.app_id = $1 "
                "and e.workflow_id = $2 and e.status = 'cancelled' "
                "and e.updated_at >= least(transaction_timestamp(), mesh.clock()) order by e.id"
            ),
            self.app_id,
            job_id,
        )
        return [self._escalation(row["row"]) for row in rows]

    def _escalation(self, text: str) -> dict[str, Any]:
        """A row of escalation; what is encoded and cannot be decoded stays as it is."""
        found: dict[str, Any] = loads(text)
        for name in ("envelope", "escalation_payload", "resolver_payload"):
            with suppress(CodecError):
                found[name] = self.payload.reveal(found[name])
        return found

    async def written(self, connection: Driver, job_ids: Sequence[str]) -> dict[str, tuple[str, int, int]]:
        """Job id → (generation, seq, token): what became of steps whose commit was not answered."""
        rows = await connection.fetch(
            self.bound(
                "select job_id, generation, seq, token from mesh.job where app_id = $1 and job_id = any($2)"
            ),
            self.app_id,
            list(job_ids),
        )
        return {row["job_id"]: (str(row["generation"]), row["seq"], row["token"]) for row in rows}

    async def reserved_by(
        self, connection: Driver, member: str, reservation: int, works: Collection[WorkKey]
    ) -> set[WorkKey]:
        """Of these pieces of work, those that the member holds by this reservation."""
        generations, activities, dimensions = zip(*works, strict=True)
        rows = await connection.fetch(
            self.bound(
                "select s.generation, s.activity_id, s.dimension "
                "from unnest($1::uuid[], $2::text[], $3::text[]) as w(generation, activity, dimension) "
                "join mesh.worker_stream as s on s.generation = w.generation and s.activity_id = w.activity "
                "and s.dimension = w.dimension::integer[] where s.reserved_by = $4 and s.reservation = $5"
            ),
            generations,
            activities,
            [array(dimension) for dimension in dimensions],
            member,
            reservation,
        )
        return {(str(row["generation"]), row["activity_id"], tuple(row["dimension"])) for row in rows}

    async def gone(self, connection: Driver, member: str, rows: Sequence[Consumed]) -> set[Consumed]:
        """Of the rows that steps were to delete, those that are not there, or are work that the member does not hold."""
        wanted: list[tuple[str, str, str, str, str]] = []
        for row in rows:
            match row.receipt:
                case MessageReceipt(message_id):
                    wanted.append(("message", row.generation, "", "{}", message_id))
                case WorkReceipt(activity_id, dimension):
                    wanted.append(("work", row.generation, activity_id, array(dimension), ""))
                case TimerReceipt(activity_id, dimension):
                    wanted.append(("timer", row.generation, activity_id, array(dimension), ""))
        found = await connection.fetch(
            self.bound(
                "select w.position from unnest($2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[]) "
                "with ordinality as w(kind, generation, activity, dimension, message, position) "
                "where not exists (select from mesh.engine_stream as s where w.kind = 'message' "
                "and s.generation = w.generation and s.message_id = w.message) "
                "and not exists (select from mesh.worker_stream as s where w.kind = 'work' "
                "and s.generation = w.generation and s.activity_id = w.activity "
                "and s.dimension = w.dimension::integer[] and s.reserved_by = $1) "
                "and not exists (select from mesh.timer as s where w.kind = 'timer' "
                "and s.generation = w.generation and s.activity_id = w.activity "
                "and s.dimension = w.dimension::integer[])"
            ),
            member,
            *(list(column) for column in zip(*wanted, strict=True)),
        )
        return {rows[row["position"] - 1] for row in found}

    async def free_expired_ids(self, job_ids: Sequence[str], *, connection: Driver | None = None) -> int:
        """Remove jobs of these ids whose time is over; how many there were. `connection`: in its transaction."""
        statement, ids = "select mesh.free_expired_ids($1, $2)", list(job_ids)
        if connection is None:
            return int(await self._value(statement, self.app_id, ids))
        return int(await connection.fetchval(self.bound(statement), self.app_id, ids))

    async def lock_due_jobs(self, connection: Driver, limit: int) -> list[DueJob]:
        """Lock jobs that have messages or due timers, in the caller's transaction."""
        rows = await connection.fetch(
            self.bound("select (d.job).*, d.events from mesh.lock_due_jobs($1, $2) as d"), self.app_id, limit
        )
        payload = self.payload
        return [_due_job(row, payload) for row in rows]

    async def load_jobs(self, connection: Driver, job_ids: Collection[str]) -> dict[str, Job]:
        """Jobs by generation, without records."""
        rows = await connection.fetch(
            self.bound("select * from mesh.job where app_id = $1 and job_id = any($2)"),
            self.app_id,
            list(job_ids),
        )
        return {str(row["generation"]): job_from(row, self.payload) for row in rows}

    async def load_records(
        self, connection: Driver, wanted: Sequence[tuple[str, str, Dimension]]
    ) -> dict[str, dict[str, dict[Dimension, Any]]]:
        """Records by generation, activity and address, for (generation, activity, address) each."""
        if not wanted:
            return {}
        generations, activities, dimensions = zip(*wanted, strict=True)
        rows = await connection.fetch(
            self.bound("select * from mesh.load_records($1, $2, $3)"),
            generations,
            activities,
            [array(dimension) for dimension in dimensions],
        )
        return records_from(rows, self.payload)

    async def next_event_at(self, connection: Driver) -> tuple[float | None, bool]:
        """Seconds until the next message or timer is due, and whether there are broadcasts to carry out."""
        row = await connection.fetchrow(
            self.bound(
                "select mesh.next_event_at($1) as due, "
                "exists (select from mesh.broadcast as b where b.app_id = $1) as broadcasts"
            ),
            self.app_id,
        )
        if row is None:
            raise AssertionError("a select without from answers with one row")
        return row["due"], row["broadcasts"]

    async def postpone_events(
        self, connection: Driver, generation: str, delay: float, reason: str, limit: int
    ) -> str:
        """Handling the job's events failed: try again after `delay`, or, past `limit` tries, give the job up."""
        return str(
            await connection.fetchval(
                self.bound("select mesh.postpone_events($1, $2, $3, $4, $5)"),
                self.app_id,
                generation,
                delay,
                reason,
                limit,
            )
        )

    async def delay_events(self, connection: Driver, generation: str, delay: float) -> None:
        """Leave the job's due events alone for a while; no failure is counted."""
        await connection.execute(
            self.bound("select mesh.delay_events($1, $2, $3)"), self.app_id, generation, delay
        )

    # -- work --------------------------------------------------------------------------------------------

    async def claim_work(
        self, connection: Driver, member: str, limits: dict[str, int], lease: float, reservation: int
    ) -> list[HeldWork]:
        """Reserve visible work, at most `limits[topic]` of each topic. `reservation`: by which it can be given back."""
        rows = await connection.fetch(
            self.bound("select * from mesh.claim_work($1, $2, $3, $4, $5, $6)"),
            self.app_id,
            member,
            list(limits),
            list(limits.values()),
            lease,
            reservation,
        )
        payload = self.payload
        return [work_from(row, payload) for row in rows]

    async def next_work_at(self, connection: Driver, topics: Collection[str]) -> float | None:
        value = await connection.fetchval(
            self.bound("select mesh.next_work_at($1, $2)"), self.app_id, list(topics)
        )
        return None if value is None else float(value)

    async def claim_named_work(
        self,
        connection: Driver,
        member: str,
        wanted: Sequence[tuple[str, str | None, Sequence[str], int]],
        lease: float,
        reservation: int,
    ) -> list[HeldWork]:
        """As `claim_work`, by workflow name: (topic, name, names that others take, limit); no name: any but those."""
        topics, names, others, limits = zip(*wanted, strict=True)
        rows = await connection.fetch(
            self.bound("select * from mesh.claim_named_work($1, $2, $3, $4, $5, $6, $7, $8)"),
            self.app_id,
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

    async def next_named_work_at(
        self, connection: Driver, wanted: Sequence[tuple[str, str | None, Sequence[str]]]
    ) -> float | None:
        """As `next_work_at`, by workflow name, as in `claim_named_work`."""
        topics, names, others = zip(*wanted, strict=True)
        value = await connection.fetchval(
            self.bound("select mesh.next_named_work_at($1, $2, $3, $4)"),
            self.app_id,
            topics,
            names,
            [text_array(other) for other in others],
        )
        return None if value is None else float(value)

    async def extend_work(
        self, connection: Driver, member: str, held: Sequence[tuple[str, str, Dimension]], lease: float
    ) -> list[bool]:
        """Prolong reservations (generation, activity, address) to now + `lease`; which are still held."""
        generations, activities, dimensions = zip(*held, strict=True)
        return list(
            await connection.fetchval(
                self.bound("select mesh.extend_work($1, $2, $3, $4, $5)"),
                member,
                generations,
                activities,
                [array(dimension) for dimension in dimensions],
                lease,
            )
        )

    async def end_stalled_workers(self, connection: Driver, limit: float) -> list[str] | None:
        """End sessions of worker logins with a transaction open for `limit` seconds; None: there are no such logins."""
        found: list[str] | None = await connection.fetchval(
            self.bound("select mesh.end_stalled_workers($1, $2)"), self.app_id, limit
        )
        return found

    async def answer_work(
        self,
        connection: Driver,
        member: str,
        answers: Sequence[tuple[str, str, Dimension, str, int, str | None]],
        wake: str,
    ) -> list[bool]:
        """Exchange held work for answers (generation, activity, address, status, code, data); which were held."""
        generations, activities, dimensions, statuses, codes, data = zip(*answers, strict=True)
        return list(
            await connection.fetchval(
                self.bound("select mesh.answer_work($1, $2, $3, $4, $5, $6, $7, $8, $9)"),
                self.app_id,
                member,
                generations,
                activities,
                [array(dimension) for dimension in dimensions],
                statuses,
                codes,
                data,
                wake,
            )
        )

    async def postpone_work(
        self,
        connection: Driver,
        member: str,
        postponed: Sequence[tuple[str, str, Dimension, float, bool]],
        wake: str | None,
    ) -> int:
        """Give held work back: (generation, activity, address, delay in seconds, whether it counts as a failure)."""
        generations, activities, dimensions, delays, retries = zip(*postponed, strict=True)
        return int(
            await connection.fetchval(
                self.bound("select mesh.postpone_work($1, $2, $3, $4, $5, $6, $7, $8)"),
                self.app_id,
                member,
                generations,
                activities,
                [array(dimension) for dimension in dimensions],
                delays,
                retries,
                wake,
            )
        )

    async def give_back_work(
        self,
        connection: Driver,
        member: str,
        topics: Collection[str],
        reservations: Collection[int] | None = None,
    ) -> int:
        """Let everybody have the work of these topics that the member holds, all or by these reservations; how much."""
        return int(
            await connection.fetchval(
                self.bound("select mesh.give_back_work($1, $2, $3, $4)"),
                self.app_id,
                member,
                list(topics),
                None if reservations is None else list(reservations),
            )
        )

    async def bury_work(
        self, connection: Driver, member: str, work: HeldWork, reason: str, error: dict[str, Any], wake: str
    ) -> bool:
        """Move held work to the dead letters and answer its activity with the error."""
        return bool(
            await connection.fetchval(
                self.bound("select mesh.bury_work($1, $2, $3, $4, $5, $6, $7, $8)"),
                self.app_id,
                member,
                work.generation,
                work.activity_id,
                array(work.dimension),
                reason,
                dumps_text(error),
                wake,
            )
        )

    # -- definitions -------------------------------------------------------------------------------------

    async def app_state(self) -> tuple[int, str | None] | None:
        """Epoch and active version, or None if nothing was ever deployed."""
        rows = await self._rows("select epoch, active_version from mesh.app where app_id = $1", self.app_id)
        return (rows[0]["epoch"], rows[0]["active_version"]) if rows else None

    async def graph(self, version: str) -> tuple[str, str] | None:
        """Stored form and checksum of a version."""
        rows = await self._rows(
            "select graph, checksum from mesh.app_version where app_id = $1 and version = $2",
            self.app_id,
            version,
        )
        return (rows[0]["graph"], rows[0]["checksum"]) if rows else None

    async def checksums(self) -> dict[str, str]:
        rows = await self._rows(
            "select version, checksum from mesh.app_version where app_id = $1", self.app_id
        )
        return {row["version"]: row["checksum"] for row in rows}

    async def deploy(self, version: str, graph: str, checksum: str, wake: str) -> bool:
        """Store a version; whether anything changed."""
        return bool(
            await self._value(
                "select mesh.deploy_version($1, $2, $3, $4, $5)", self.app_id, version, graph, checksum, wake
            )
        )

    # -- jobs, as others see them ------------------------------------------------------------------------

    async def job(self, job_id: str) -> Job | None:
        """A job whose time is not over."""
        rows = await self._rows(
            "select * from mesh.job where app_id = $1 and job_id = $2 "
            "and (expires_at is null or expires_at > mesh.clock())",
            self.app_id,
            job_id,
        )
        return job_from(rows[0], self.payload) if rows else None

    async def status(self, job_id: str) -> int | None:
        rows = await self._rows(
            "select status from mesh.job where app_id = $1 and job_id = $2 "
            "and (expires_at is null or expires_at > mesh.clock())",
            self.app_id,
            job_id,
        )
        return int(rows[0]["status"]) if rows else None

    async def hook_rules(self, topic: str) -> list[dict[str, Any]]:
        """The first rule on a hook topic of every deployed version, each different one once: `to` and `actual`."""
        rows = await self._rows(
            "select distinct h.rule ->> 'to' as \"to\", "
            "(h.rule #> '{conditions,match,0,actual}')::text as actual "
            "from mesh.app_version as v "
            "cross join lateral json_array_elements(v.graph -> 'document' -> 'app' -> 'graphs') as g(graph) "
            "cross join lateral (select g.graph -> 'hooks' -> $2 -> 0 as rule) as h "
            "where v.app_id = $1 and h.rule #> '{conditions,match,0,actual}' is not null",
            self.app_id,
            topic,
        )
        return [{"to": row["to"], "actual": loads(row["actual"])} for row in rows]

    async def send_signal(self, signal: Signal, keys: Sequence[str], wake: str) -> bool:
        """Deliver a signal from outside under the first of the keys that somebody waits under; whether one was."""
        return bool(
            await self._value(
                "select mesh.send_signal($1, $2, $3, $4, $5, $6, $7, $8)",
                self.app_id,
                signal.topic,
                list(keys),
                self.payload.dumps(signal.data),
                signal.status,
                signal.code,
                signal.keep,
                wake,
            )
        )

    async def send_message(
        self,
        job_id: str,
        generation: str | None,
        message_id: str,
        kind: str,
        activity_id: str,
        dimension: Dimension,
        status: str,
        code: int,
        data: str,
        wake: str,
    ) -> str:
        """Put a message for a live job on the engine stream: sent, duplicate, missing or closed."""
        return str(
            await self._value(
                "select mesh.send_message($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                self.app_id,
                job_id,
                generation,
                message_id,
                kind,
                activity_id,
                array(dimension),
                status,
                code,
                data,
                wake,
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
        """Add an answer to an activity that waits for one: sent, duplicate, missing or closed.

        A worker login may do so where it gave a pending answer; held: where it has still to give it.
        """
        return await self.send_message(
            job_id, generation, f"{LATER}{guid}", "added", activity_id, dimension, status, code, data, wake
        )

    async def subscribe(self, member: str, topics: Sequence[tuple[str, bool]], lease: float) -> None:
        """The member wants what is announced on these topics; of each, whether it is a pattern."""
        names, patterns = zip(*topics, strict=True)
        await self._value(
            "select mesh.subscribe($1, $2, $3, $4, $5)", self.app_id, member, names, patterns, lease
        )

    async def unsubscribe(self, member: str, topics: Sequence[tuple[str, bool]] | None) -> None:
        """The member wants these no more; None: nothing at all."""
        names, patterns = ((), ()) if topics is None else zip(*topics, strict=True)
        await self._value(
            "delete from mesh.subscription as s where s.app_id = $1 and s.member = $2 and ($5 or exists "
            "(select from unnest($3::text[], $4::boolean[]) as t(topic, by_pattern) "
            "where t.topic = s.topic and t.by_pattern = s.by_pattern))",
            self.app_id,
            member,
            names,
            patterns,
            topics is None,
        )

    async def queue_depth(self) -> list[Any]:
        """What waits, by `stream` (worker, engine, timer; dead) and `topic`: `ready`, `held`, `delayed`, `oldest` (seconds)."""
        return await self._rows(sql.read("queries")["queue_depth"], self.app_id)

    # -- what is counted ---------------------------------------------------------------------------------

    async def measures(self, topic: str, key: str, slices: Sequence[str] | None) -> list[Any]:
        """What was counted about the jobs of a graph under a key; `slices` None: at any time."""
        return await self._rows(
            "select slice, measure, facet, value, number, job_id, generation from mesh.measure "
            "where app_id = $1 and topic = $2 and job_key = $3 and ($4::text[] is null or slice = any($4)) "
            "order by created_at, job_id",
            self.app_id,
            topic,
            key,
            slices,
        )

    async def indexed(
        self, connection: Driver, topic: str, key: str, slices: Sequence[str] | None, facets: Sequence[str]
    ) -> list[Any]:
        """The jobs listed under facets (`name:value`; none: all), each once per slice and facet."""
        return list(
            await connection.fetch(
                self.bound(
                    "select distinct slice, facet || ':' || value as facet, job_id from mesh.measure "
                    "where app_id = $1 and topic = $2 and job_key = $3 and measure = 'index' "
                    "and ($4::text[] is null or slice = any($4)) "
                    "and ($5::text[] = '{}' or facet || ':' || value = any($5)) order by 1, 2, 3"
                ),
                self.app_id,
                topic,
                key,
                slices,
                list(facets),
            )
        )

    async def scrub_index(
        self, connection: Driver, topic: str, key: str, slices: Sequence[str] | None, facets: Sequence[str]
    ) -> None:
        """Forget which jobs are listed under facets."""
        await connection.execute(
            self.bound(
                "delete from mesh.measure where app_id = $1 and topic = $2 and job_key = $3 and measure = 'index' "
                "and ($4::text[] is null or slice = any($4)) "
                "and ($5::text[] = '{}' or facet || ':' || value = any($5))"
            ),
            self.app_id,
            topic,
            key,
            slices,
            list(facets),
        )

    async def send_signals(
        self,
        connection: Driver,
        topic: str,
        keys: Sequence[str],
        payloads: Sequence[str],
        broadcast: int | None,
        wake: str,
    ) -> int:
        """Signal many keys in one statement, which also ends the broadcast they came from; how many waited."""
        return int(
            await connection.fetchval(
                self.bound("select mesh.send_signals($1, $2, $3, $4, $5, $6, $7)"),
                self.app_id,
                topic,
                keys,
                payloads,
                600.0,
                broadcast,
                wake,
            )
        )

    async def next_broadcast(self, connection: Driver) -> dict[str, Any] | None:
        """A broadcast of a flow that no other engine is carrying out, locked in the caller's transaction."""
        row = await connection.fetchrow(
            self.bound(
                "select id, topic, facet, query, data from mesh.broadcast where app_id = $1 "
                "order by id limit 1 for update skip locked"
            ),
            self.app_id,
        )
        if row is None:
            return None
        payload = self.payload
        return {**row, "query": payload.loads(row["query"]), "data": payload.loads(row["data"])}

    async def bury_broadcast(self, connection: Driver, broadcast: int, reason: str) -> None:
        await connection.execute(
            self.bound("select mesh.bury_broadcast($1, $2, $3)"), self.app_id, broadcast, reason
        )

    async def channel(self, connection: Driver) -> str:
        return str(await connection.fetchval(self.bound("select mesh.channel($1)"), self.app_id))

    async def notify(self, connection: Driver, messages: Sequence[tuple[str, str]]) -> None:
        """Send NOTIFY messages (channel, payload)."""
        channels, payloads = zip(*messages, strict=True)
        await connection.fetchval(
            "select count(pg_notify(m.channel, m.payload)) from unnest($1::text[], $2::text[]) as m(channel, payload)",
            channels,
            payloads,
        )


LATER = "later:"
"""How the message with an added answer is named. Of two that are due at once it comes after the first, `answer:…`."""


def _listeners(members: Sequence[str], topics: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for member, topic in zip(members, topics, strict=True):
        found.setdefault(topic, set()).add(member)
    return found


__all__ = ["AnsweredElsewhereError", "Batch", "Committed", "DueJob", "HeldWork", "StatementError", "Store"]
