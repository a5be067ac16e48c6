"""Advances the jobs of an app: the main flow is notified → lock → load → advance → commit → tell.

Two ways in. A job that this process created or last advanced is in memory (`CachedJob`): its events become a step at once,
and the step goes out with the next group commit. Anything else arrives on the engine stream or as a due timer: the
jobs are locked, loaded, advanced and committed in one transaction. Both meet in the compare-and-set of the job row.

Nothing in memory is needed for correctness. A process that dies leaves rows: work whose lease lapses, messages that
become visible to others within `HANDOVER` seconds, timers and waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import TaskGroup

from hotmesh.core.advance.advance import advance, start
from hotmesh.core.advance.limits import Limits
from hotmesh.core.mapping import Environment
from hotmesh.core.plan.compile import Plan
from hotmesh.core.state.job import Event, Job, StartRequest, WorkReceipt
from hotmesh.core.state.step import Consumed, Step, WorkKey
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import (
    CodecError,
    ConnectionFailedError,
    ConnectionLostError,
    DuplicateJobError,
    HotMeshError,
    NoConnectionError,
)
from hotmesh.postgres.connect.connection import backoff, id_is_held, passing
from hotmesh.postgres.members import live_members
from hotmesh.postgres.rows import AnswerNotice, HeldWork
from hotmesh.postgres.store import AnsweredElsewhereError, Batch, Committed, Store
from hotmesh.runtime import ids
from hotmesh.runtime.engine.cell import CachedJob, Pending
from hotmesh.runtime.engine.duress import Duress, Level
from hotmesh.runtime.engine.job_cache import JobCache, Notify
from hotmesh.runtime.engine.loader import Loader
from hotmesh.runtime.engine.stream import EVENT_LIMIT, ID_HELD_RETRY, EngineStream
from hotmesh.runtime.pace import Pace
from hotmesh.runtime.telemetry.metrics import add
from hotmesh.runtime.wake import EVENTS, Wake

if TYPE_CHECKING:
    from hotmesh.postgres.connect.connection import Link
    from hotmesh.runtime.definitions.plans import Plans
    from hotmesh.runtime.settings import Settings
    from hotmesh.runtime.telemetry.events import Events
    from hotmesh.runtime.telemetry.metrics import Metrics
    from hotmesh.runtime.telemetry.tracing import Telemetry
    from hotmesh.runtime.work.slots import Slots

logger = logging.getLogger("hotmesh.engine")


class Engine:
    """The engine of one app in one process. `run` is its lifetime."""

    def __init__(
        self,
        store: Store,
        plans: Plans,
        member: str,
        settings: Settings,
        environment: Environment,
        workers: Slots,
        notify: Notify,
        recheck: Callable[[str], None],
        reply_channel: Callable[[], str | None],
        *,
        readonly: bool = False,
        metrics: Metrics,
        events: Events | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._plans = plans
        self._member = member
        self._settings = settings
        self._environment = environment
        self._workers = workers
        self._readonly = readonly
        self._stopping = False
        self._recheck = recheck
        self._own_channel = reply_channel
        self._telemetry = telemetry
        self._limits = Limits(
            max_cycles=settings.max_cycles,
            expire=settings.expire,
            trace=None if telemetry is None else telemetry.mode,
        )
        self._stream_wake = Wake(settings.poll)
        self._cache = JobCache(
            plans,
            workers,
            settings,
            notify,
            self._stream_wake,
            self._reply_channel,
            lambda: store.payload,
            readonly=readonly,
            metrics=metrics,
            events=events,
            telemetry=telemetry,
        )
        self.duress = Duress(settings)
        self.pace = Pace(floor=self.duress.floor)
        self._loader = Loader(store, plans)
        self._stream = EngineStream(
            store,
            plans,
            member,
            settings,
            environment,
            self._cache,
            self._loader,
            self._stream_wake,
            self._limits,
            metrics,
            events,
            self.pace,
            self.duress,
            self._apply_rates,
        )
        self._restarts: list[tuple[Pending, frozenset[str]]] = []
        self._held: set[Pending] = set()
        """Starts that wait because their id is in an open transaction."""
        self._commits = [store.link("commit 1"), store.link("commit 2")]
        self._loads = store.link("load")
        self._committing = 0
        self._began = 0.0
        """When the last commit was begun, by `time.monotonic`."""
        self._company = False
        """The app has other engines, which keep the database busy while this one prepares its next commit."""
        self._look_around_at = 0.0
        self._closed = False
        self._loading = False
        self._in_load = 0
        """Jobs are on their way into memory, with events that are in neither queue meanwhile."""
        self._losses = 0
        """Connections lost in a row, without a commit in between."""
        self._lost_since = 0.0
        self._put_off = 0
        """Steps that are tried again in a moment."""
        self._idle = anyio.Event()

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Start the loops in the instance's task group; cancelling them rolls back what is not committed."""
        for number, link in enumerate(self._commits):
            tasks.start_soon(self._commit_loop, number, link, name=f"commit {number}")
        tasks.start_soon(self._load_loop, name="load")
        if not self._readonly:
            tasks.start_soon(self._stream.run, name="stream")

    async def drain(self) -> None:
        """Take no more from the stream, and return once every step in memory has been committed."""
        self._stopping = True
        self._stream.stop()
        while (
            self._cache.ready
            or self._committing
            or self._cache.unloaded
            or self._restarts
            or self._loading
            or self._put_off
        ):
            self._idle = anyio.Event()
            await self._idle.wait()

    async def close(self) -> None:
        self._closed = True
        held, self._held = self._held, set()
        for item in (*self._cache.ready, *(pending for pending, _ in self._restarts), *held):
            if isinstance(item, Pending):
                self._finish(item, HotMeshError(STOPPED))
        for link in (*self._commits, self._loads):
            await link.close()
        await self._stream.close()

    def _reply_channel(self) -> str | None:
        """Where workers of other processes tell this one their answers; None: to all engines."""
        unfit = self._readonly or self._stopping or self._cache.slowed
        return None if unfit else self._own_channel()

    def behind(self) -> bool:
        """Whether the events of many jobs wait for a commit."""
        waiting = len(self._cache.unloaded) + self._in_load
        if waiting + len(self._cache.ready) <= UNCOMMITTED_LIMIT:
            return False
        return waiting + sum(isinstance(item, CachedJob) for item in self._cache.ready) > UNCOMMITTED_LIMIT

    def slot_free(self) -> None:
        """A local worker can take more of what overflowed."""
        self._cache.work_to_do.set()

    def deliver(self, job_id: str, generation: str, event: Event) -> None:
        """Something happened to a job, known to this process first."""
        self._cache.deliver(job_id, generation, event)

    def wake(self, delay: float = 0.0) -> None:
        """There may be something on the engine stream, now or in some seconds."""
        if delay:
            self._stream_wake.set_in(delay)
        else:
            self._stream_wake.set()

    def answered(self, answer: AnswerNotice) -> None:
        """A worker elsewhere answered for a job that this process had in memory when it sent the work."""
        if self._readonly or self._stopping or self._cache.slowed:
            return
        try:
            answer.data = self._store.payload.reveal(answer.data)
        except CodecError as error:
            # Its row is soon there for an engine that can.
            logger.error("answer cannot be decoded", extra={"job_id": answer.job_id, "error": str(error)})
            return
        self._cache.answered_elsewhere(answer)

    def set_rate(self, rate: int) -> None:
        """Take at most one message per `rate` milliseconds from now on, or none (-1). Starts by callers go on."""
        if rate != self.pace.rate:
            self.pace.change(rate)
        self._apply_rates()

    def _apply_rates(self) -> None:
        """Use memory only as long as nothing slows this engine: what it may not take must be where others find it."""
        slowed = self.pace.delay != 0
        if slowed != self._cache.slowed:
            self._cache.slowed = slowed
            self._workers.answer_by_stream(slowed)

    def on_duress(self, level: Level, floor: float) -> None:
        """Another engine says how it fares. One that consumes nothing has nothing to slow."""
        if not self._readonly and self.duress.adopt(level, floor):
            self._apply_rates()

    @property
    def counts(self) -> dict[int, int]:
        """Starts and events that have become part of a committed step here, by code."""
        return self._cache.counts

    @property
    def error_count(self) -> int:
        """Failures in a row to read the engine stream."""
        return self._stream.failures

    @property
    def load(self) -> tuple[int, int, int]:
        """Jobs in memory, about how many bytes they take, and steps that wait for a commit."""
        return len(self._cache.cells), self._cache.bytes, len(self._cache.ready)

    # -- beginnings --------------------------------------------------------------------------------------

    async def start(self, request: StartRequest) -> Job:
        """Create a job; returns once it is durable.

        Raises TopicNotFoundError, MappingError, DuplicateJobError, AppNotFoundError, ConnectionLostError.
        """
        if self._telemetry is not None:
            request = self._telemetry.begin(request)
            try:
                return await self._start(request)
            finally:
                self._telemetry.forget(request.generation)
        return await self._start(request)

    async def _start(self, request: StartRequest) -> Job:
        if self._closed:
            raise HotMeshError(STOPPED)
        plan = await self._plans.active()
        step = self._start_step(plan, request, frozenset())
        # A bare future: the commit loop answers some thousand of these a second.
        verdict: asyncio.Future[Job] = asyncio.get_running_loop().create_future()

        def done(result: Job | BaseException) -> None:
            if verdict.done():
                return
            if isinstance(result, BaseException):
                verdict.set_exception(result)
            else:
                verdict.set_result(result)

        self._cache.submit(Pending(step, self._plans.epoch, request=request, done=done))
        return await verdict

    def _start_step(self, plan: Plan, request: StartRequest, taken: frozenset[str]) -> Step:
        return start(plan, request, _now(), self._environment, taken=taken, limits=self._limits)

    # -- the group commit --------------------------------------------------------------------------------

    async def _commit_loop(self, number: int, link: Link) -> None:
        """Commit whatever is ready, all of it at once; what becomes ready meanwhile goes with the next.

        The second loop joins only when there is enough for a batch of its own: two small commits cost more than one. And
        it leaves everything to the first where other engines keep the database busy meanwhile, unless that is held up.
        """
        enough = 1 if number == 0 else SECOND_COMMIT
        while True:
            if len(self._cache.ready) < enough and not (number == 0 and self._workers.can_take):
                if not self._cache.ready and not self._committing:
                    self._idle.set()
                if self._cache.work_to_do.is_set():
                    self._cache.work_to_do = anyio.Event()
                await self._cache.work_to_do.wait()
                continue
            if number and not self._held_up() and await self._in_company():
                await anyio.sleep(HELD_UP / 2)
                continue
            batch = self._collect()
            if not batch and not self._workers.can_take:
                continue
            self._committing += 1
            self._began = time.monotonic()
            try:
                await self._commit(link, batch)
            except BaseException:
                for pending in batch:
                    self._finish(pending, HotMeshError(STOPPED))
                raise
            finally:
                self._committing -= 1
            if self._cache.ready:
                self._cache.work_to_do.set()

    def _held_up(self) -> bool:
        """Whether a commit of the first loop takes so long that the second must not wait for it."""
        return self._committing > 0 and time.monotonic() - self._began > HELD_UP

    async def _in_company(self) -> bool:
        """Whether the app has other engines; looked up again after a while."""
        now = time.monotonic()
        if now >= self._look_around_at:
            self._look_around_at = now + LOOK_AROUND
            try:
                self._company = len((await live_members(self._store)).engines) > 1
            except NoConnectionError:
                logger.debug("other engines could not be counted")
        return self._company

    def _collect(self) -> list[Pending]:
        """Turn what is ready into steps; all events that a job has by now become one step.

        With nothing in flight, half of a larger batch is left to the other loop: while Postgres writes one half,
        this process prepares the other.
        """
        batch: list[Pending] = []
        most = self._settings.batch
        if not self._committing and not self._company and len(self._cache.ready) >= 2 * SECOND_COMMIT:
            most = min(most, (len(self._cache.ready) + 1) // 2)
        while self._cache.ready and len(batch) < most:
            item = self._cache.ready.popleft()
            if isinstance(item, CachedJob):
                pending = self._compute(item)
                if pending is not None:
                    batch.append(pending)
            else:
                batch.append(item)
        return batch

    def _compute(self, cell: CachedJob, taken: frozenset[str] = frozenset()) -> Pending | None:
        job = cell.job
        plan = None if job is None else self._plans.known_for(job)
        if job is None or plan is None or not self._cache.loaded(cell):
            self._cache.queue(cell)
            return None
        events, cell.events = cell.events[:EVENT_LIMIT], cell.events[EVENT_LIMIT:]
        events = self._cache.still_ours(events)
        if not events:
            self._cache.step_done(cell)
            return None
        try:
            step = advance(plan, job, events, _now(), self._environment, taken=taken, limits=self._limits)
        except Exception as error:
            logger.error("step could not be computed", extra={"job_id": cell.job_id}, exc_info=error)
            self._fail_events(cell, events, f"the step could not be computed: {_words(error)}")
            return None
        return Pending(step, self._plans.epoch, cell=cell, events=events, taken=taken)

    async def _commit(self, link: Link, batch: list[Pending]) -> None:
        """Commit a batch; if it fails as a whole, one by one, so that a poisoned step harms no other."""
        try:
            await self._write(link, batch)
        except AnsweredElsewhereError:
            await self._answered_elsewhere(link, batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other jobs go on
            if not batch:
                # Nothing but reservations of work that overflowed, which is given back.
                logger.warning("work could not be reserved", extra={"error": str(error)})
                await anyio.sleep(0.1)
            elif len(batch) > 1:
                for pending in batch:
                    await self._commit(link, [pending])
            elif id_is_held(error) and batch[0].request is not None:
                self._wait_for_id(batch[0])
            elif passing(error) and batch[0].cell is not None:
                self._try_later(batch[0], error)
            else:
                self._poisoned(batch[0], error)

    async def _write(self, link: Link, batch: list[Pending]) -> None:
        epoch = self._plans.epoch
        stale = [pending for pending in batch if pending.epoch != epoch]
        if stale:
            self._recompute(stale)
            # In place: whoever called handles what goes wrong with those that are left.
            batch[:] = [pending for pending in batch if pending.epoch == epoch]
        overflow = self._workers.offer_overflow()
        if not batch and not overflow:
            return
        token, since = ids.token(), time.monotonic()
        try:
            await self._send(link, batch, overflow, epoch, token)
        except NoConnectionError as error:
            await self._after_loss(link, batch, overflow, token, since, error)
        except BaseException:
            self._workers.overflow_refused(overflow)
            raise

    async def _send(
        self, link: Link, batch: list[Pending], overflow: list[HeldWork], epoch: int, token: int
    ) -> None:
        """One commit: these steps, and reservations for work that overflowed before."""
        since = time.monotonic()
        try:
            arguments, wake = self._cache.encode(batch)
            for work in overflow:
                arguments.reserve(work.generation, work.activity_id, work.dimension)
            async with link.use() as connection:
                committed = await self._store.commit(
                    connection,
                    arguments,
                    self._member,
                    epoch,
                    token,
                    self._settings.lease,
                    wake,
                    watched=self._cache.watched(batch),
                )
        except NoConnectionError:
            # Whether it was written is not known; the slots of local workers are kept until it is.
            raise
        except BaseException:
            self._cache.free_slots(*batch)
            raise
        if committed.epoch != epoch:
            self._cache.free_slots(*batch)
            self._workers.overflow_refused(overflow)
            overflow.clear()
            add(self._metrics.refused, "definitions", len(batch))
            await self._plans.refresh()
            self._recompute(batch)
            return
        self._metrics.committed(len(batch), time.monotonic() - since, committed.refused.values())
        self._losses = 0
        self._measure(batch, time.monotonic() - since)
        self._workers.overflow_claimed(overflow, committed.held, since)
        overflow.clear()  # settled: whatever goes wrong from here on
        for number, pending in enumerate(batch):
            refusal = committed.refused.get(number)
            if refusal is None:
                self._cache.applied(pending, committed, arguments)
            else:
                self._cache.free_slots(pending)
                await self._refused(pending, *refusal)
        if committed.woken:
            self._stream_wake.set()

    def _measure(self, batch: Sequence[Pending], seconds: float) -> None:
        """Note how long each event of a commit took; starts are not consumed, so they do not count."""
        events = [event for pending in batch for event in pending.events]
        if events:
            self.duress.took(events, seconds)
            self._apply_rates()

    # -- verdicts ----------------------------------------------------------------------------------------

    async def _refused(self, pending: Pending, reason: str, taken: str) -> None:
        if reason == "busy" and pending.cell is not None:
            self._when_free(pending)
            return
        if reason == "lost":
            # Another process advanced the job: read it again, and apply the events to what it is now.
            self._retry_cell(pending, reload=True)
            return
        request = pending.request
        try:
            if pending.lost and await self._is_ours(pending):
                # The commit whose answer was lost came through after all.
                pending.local = [False] * len(pending.step.work)
                self._cache.applied(pending, self._unknown(), Batch())
                return
            freed = await self._store.free_expired_ids([taken]) > 0
        except NoConnectionError:
            # The other steps of the batch are settled; this one is refused again, and then asks again.
            freed = True
        if freed:
            self._resubmit(pending, pending.taken)
            return
        if request is not None and pending.step.jobs[0].job.job_id == taken:
            self._finish(pending, DuplicateJobError(taken))
            return
        # A child's id is in other hands: the step is computed again with that fact.
        self._resubmit(pending, pending.taken | {taken})

    def _resubmit(self, pending: Pending, taken: frozenset[str]) -> None:
        if pending.request is not None:
            self._restart(pending, taken)
            return
        cell = pending.cell
        if cell is None:
            return
        cell.events = [*pending.events, *cell.events]
        again = self._compute(cell, taken)
        if again is not None:
            self._cache.submit(again)

    def _restart(self, pending: Pending, taken: frozenset[str]) -> None:
        """Compute a start again; the active version may have to be read first."""
        self._restarts.append((pending, taken))
        self._cache.something_to_load.set()

    def _recompute(self, batch: Sequence[Pending]) -> None:
        """The definitions changed: compute these steps again under what holds now."""
        for pending in batch:
            self._resubmit(pending, pending.taken)

    def _when_free(self, pending: Pending) -> None:
        """Another engine is working on the job: try again in a moment, with what it leaves."""
        cell = pending.cell
        if cell is None:
            raise AssertionError("a start changes no job")
        cell.blocked += 1
        self._put_off += 1
        delay = min(0.005 * 2 ** min(cell.blocked, 5), 0.1)
        asyncio.get_running_loop().call_later(delay, self._later, pending)

    def _retry_cell(self, pending: Pending, *, reload: bool) -> None:
        cell = pending.cell
        if cell is None:
            return
        cell.events = [*pending.events, *cell.events]
        if reload:
            cell.job = None
            self._cache.cells[cell.generation] = cell
        self._cache.queue(cell)

    async def _answered_elsewhere(self, link: Link, batch: list[Pending]) -> None:
        """Rows that some of the steps answer are gone: what those events report does not count; all else is committed."""
        try:
            async with link.use() as connection:
                gone = await self._store.gone(
                    connection, self._member, [item for pending in batch for item in pending.step.consumed]
                )
        except NoConnectionError:
            gone = set()  # nothing was written, and it comes to light again
        late = {pending for pending in batch if not gone.isdisjoint(pending.step.consumed)}
        for pending in late:
            self._without(pending, gone)
        if late:
            others = [pending for pending in batch if pending not in late]
            if others:
                await self._commit(link, others)
        elif len(batch) > 1:
            for pending in batch:
                await self._commit(link, [pending])
        else:
            self._retry_cell(batch[0], reload=True)

    def _without(self, pending: Pending, gone: Collection[Consumed]) -> None:
        """Go on with those events of a step that nobody else was first with."""
        cell = pending.cell
        if cell is None:
            raise AssertionError("a start answers no row")
        late = [
            event
            for event in pending.events
            if event.receipt is not None and Consumed(cell.generation, event.receipt) in gone
        ]
        for event in late:
            add(self._metrics.refused, "answered")
            logger.warning(
                "event dropped, another process was first",
                extra={"job_id": cell.job_id, "activity_id": event.activity_id, "kind": event.kind},
            )
        self._workers.answers_committed(cell.generation, late)
        cell.events = [*(event for event in pending.events if event not in late), *cell.events]
        cell.job = None
        self._cache.cells[cell.generation] = cell
        self._cache.step_done(cell)

    def _poisoned(self, pending: Pending, error: BaseException) -> None:
        """The database refuses the step itself: its events fail their activities instead."""
        logger.error(
            "step could not be stored", extra={"job_id": pending.step.jobs[0].job.job_id}, exc_info=error
        )
        if pending.request is not None:
            self._finish(pending, error)
            return
        cell = pending.cell
        if cell is None:
            return
        self._fail_events(cell, pending.events, f"the result could not be stored: {_words(error)}")

    def _try_later(self, pending: Pending, error: BaseException) -> None:
        """The database has no room, or two transactions were in each other's way: nothing is wrong with the step."""
        cell = pending.cell
        if cell is None:
            raise AssertionError("a start is not tried again: its caller is told")
        cell.failures += 1
        delay = backoff(cell.failures, longest=self._settings.reconnect_max)
        logger.warning(
            "step not stored yet", extra={"job_id": cell.job_id, "delay": delay, "error": str(error)}
        )
        self._put_off += 1
        asyncio.get_running_loop().call_later(delay, self._later, pending)

    def _wait_for_id(self, pending: Pending) -> None:
        """A transaction of somebody's has the id and is still open: whether it is taken is known when that ends."""
        now = time.monotonic()
        if pending.held_until is None:
            pending.held_until = now + self._settings.connect_timeout
        elif now >= pending.held_until:
            self._finish(pending, DuplicateJobError(pending.step.jobs[0].job.job_id))
            return
        self._held.add(pending)
        asyncio.get_running_loop().call_later(ID_HELD_RETRY, self._try_id_again, pending)

    def _try_id_again(self, pending: Pending) -> None:
        if pending in self._held:
            self._held.remove(pending)
            self._restart(pending, pending.taken)

    def _later(self, pending: Pending) -> None:
        self._put_off -= 1
        self._retry_cell(pending, reload=True)

    def _fail_events(self, cell: CachedJob, events: Sequence[Event], message: str) -> None:
        """Let events fail their activities: what they report can be neither applied nor stored."""
        cell.failures += 1
        if cell.failures > self._settings.poison_threshold:
            # Not even the error can be stored; the rows stay, and others will come to the same end by the stream.
            cell.job = None
            self._workers.answers_committed(cell.generation, events)
            self._cache.drop_events(cell)
            self._cache.step_done(cell)
            return
        failure = {"message": message, "code": 500}
        cell.events = [
            Event(
                e.kind,
                e.activity_id,
                e.dimension,
                "error",
                500,
                failure,
                e.message_id,
                e.receipt,
                e.started_at,
                e.attempt,
            )
            if e.kind in ("answer", "added", "result", "signal", "timer")
            else Event("interrupt", data={"reason": failure["message"], "code": 500}, receipt=e.receipt)
            for e in events
        ] + cell.events
        self._cache.queue(cell)

    async def _after_loss(
        self,
        link: Link,
        batch: list[Pending],
        overflow: list[HeldWork],
        token: int,
        since: float,
        error: BaseException,
    ) -> None:
        """The connection broke: find out which steps were written, and carry on with the others.

        Waiting callers get ConnectionLostError only once `connect_timeout` has passed without a connection.
        """
        written: dict[str, tuple[str, int, int]] = {}
        held: set[WorkKey] = set()
        reserved = {work.key for work in overflow}.union(*(pending.reserved for pending in batch))
        # Reading may work where writing does not: a server that is read-only must not be asked in a busy loop.
        if self._losses:
            await anyio.sleep(backoff(self._losses, longest=self._settings.reconnect_max))
            self._give_up_starts(batch, error)
        else:
            self._lost_since = min((pending.sent for pending in batch), default=time.monotonic())
        self._losses += 1
        failures = 0
        while True:
            try:
                async with (
                    link.use() as connection,
                    # One snapshot: the server may be writing it just now.
                    connection.transaction(isolation="repeatable_read", readonly=True),
                ):
                    written = await self._store.written(
                        connection, [pending.step.jobs[0].job.job_id for pending in batch]
                    )
                    if reserved:
                        held = await self._store.reserved_by(connection, self._member, token, reserved)
                break
            except NoConnectionError:
                self._give_up_starts(batch, error)
                await anyio.sleep(backoff(failures, longest=self._settings.reconnect_max))
                failures += 1
        # It was written as a whole or not at all.
        seen = bool(held) or any(token == found for *_, found in written.values())
        if seen:
            self._workers.overflow_claimed(
                overflow, [position for position, work in enumerate(overflow) if work.key in held], since
            )
        else:
            self._workers.overflow_refused(overflow)
            if reserved:
                self._workers.lost_reservations.add(token)
        for pending in batch:
            job = pending.step.jobs[0].job
            # Held rows tell it, too, when the job has been advanced by others since.
            if written.get(job.job_id) == (job.generation, job.seq, token) or held & pending.reserved:
                self._cache.keep_slots(pending, held)
                self._cache.applied(pending, self._unknown(), Batch())
            else:
                pending.lost = True
                self._cache.free_slots(pending)
                if pending.request is not None:
                    if pending.done is not None:
                        self._cache.submit(pending)
                else:
                    self._retry_cell(pending, reload=True)
        self._stream_wake.set()

    def _unknown(self) -> Committed:
        """The verdict on a step that was found written after its answer was lost."""
        return Committed({}, self._plans.epoch, woken=True, listeners={}, committed_at=_now())

    async def _is_ours(self, pending: Pending) -> bool:
        """Whether the job that a start should create is the one that an earlier commit of the start created."""
        job = pending.step.jobs[0].job
        async with self._store.connection() as connection:
            written = await self._store.written(connection, [job.job_id])
        return pending.request is not None and written.get(job.job_id, ("",))[0] == job.generation

    def _give_up_starts(self, batch: list[Pending], error: BaseException) -> None:
        """Tell those who wait for a start, once there has been no database for `connect_timeout`."""
        if time.monotonic() - self._lost_since < self._settings.connect_timeout:
            return
        for pending in batch:
            if pending.request is not None:
                self._finish(pending, ConnectionLostError(str(error)))
                pending.done = None
        for item in [
            item for item in self._cache.ready if isinstance(item, Pending) and item.request is not None
        ]:
            self._cache.ready.remove(item)
            self._finish(item, ConnectionLostError(str(error)))
        restarts, self._restarts = self._restarts, []
        for pending, _ in restarts:
            self._finish(pending, ConnectionLostError(str(error)))

    def _finish(self, pending: Pending, error: BaseException) -> None:
        if pending.done is not None:
            pending.done(error)

    # -- loading -----------------------------------------------------------------------------------------

    async def _load_loop(self) -> None:
        """Load the jobs that have events but are not in memory, all that wait at once."""
        failures = 0
        while True:
            if not self._cache.unloaded and not self._restarts:
                self._cache.something_to_load = anyio.Event()
                await self._cache.something_to_load.wait()
            restarts, self._restarts = self._restarts, []
            waiting, self._cache.unloaded = self._cache.unloaded, []
            self._loading = True
            self._in_load = len(waiting)
            try:
                while restarts:
                    await self._start_again(*restarts[-1])
                    restarts.pop()
                if waiting:
                    await self._load(waiting)
                failures = 0
            except NoConnectionError as error:
                self._restarts += self._still_patient(restarts, error)
                self._cache.unloaded = [
                    *(cell for cell in waiting if cell.busy and cell.events),
                    *self._cache.unloaded,
                ]
                await anyio.sleep(backoff(failures, longest=self._settings.reconnect_max))
                failures += 1
            except Exception as error:
                logger.error("jobs could not be loaded, loading them one by one", exc_info=error)
                self._restarts += restarts
                await self._load_singly(waiting)
            self._loading = False
            self._in_load = 0
            self._cache.work_to_do.set()

    def _still_patient(
        self, restarts: list[tuple[Pending, frozenset[str]]], error: BaseException
    ) -> list[tuple[Pending, frozenset[str]]]:
        """Those of the starts that have not waited for `connect_timeout` yet; the callers of the others are told."""
        patient = []
        for pending, taken in restarts:
            if time.monotonic() - pending.sent < self._settings.connect_timeout:
                patient.append((pending, taken))
            else:
                self._finish(pending, ConnectionLostError(str(error)))
        return patient

    async def _load_singly(self, waiting: Sequence[CachedJob]) -> None:
        """Load jobs apart from each other; one that cannot be loaded is left to its rows, which come again."""
        for cell in waiting:
            try:
                await self._load([cell])
            except NoConnectionError:
                self._cache.unloaded.append(cell)
            except CodecError as error:
                await self._leave(cell, error)
            except Exception as error:
                logger.error("job could not be loaded", extra={"job_id": cell.job_id}, exc_info=error)
                self._cache.drop_events(cell)
                cell.job, cell.busy = None, False
                self._cache.forget(cell)

    async def _leave(self, cell: CachedJob, error: CodecError) -> None:
        """A job that this process cannot decode is for another one; answers of workers here become rows for it."""
        logger.error("job cannot be decoded", extra={"job_id": cell.job_id, "error": str(error)})
        events, cell.events, cell.job, cell.busy = cell.events, [], None, False
        self._cache.forget(cell)
        answers = [event for event in events if isinstance(event.receipt, WorkReceipt)]
        if not answers:
            return
        dumps = self._store.payload.dumps
        try:
            async with self._loads.use() as connection:
                await self._store.answer_work(
                    connection,
                    self._member,
                    [
                        (cell.generation, e.activity_id, e.dimension, e.status, e.code, dumps(e.data))
                        for e in answers
                        if e.data is not UNDEFINED
                    ],
                    EVENTS,
                )
        except (ConnectionLostError, ConnectionFailedError, CodecError) as failure:
            # Their leases lapse, and the work is done again.
            logger.error("answers not handed on", extra={"job_id": cell.job_id, "error": str(failure)})
        finally:
            self._workers.answers_committed(cell.generation, answers)

    async def _start_again(self, pending: Pending, taken: frozenset[str]) -> None:
        if pending.request is None:
            raise AssertionError("only a start is started again")
        try:
            plan = await self._plans.active()
            step = self._start_step(plan, pending.request, taken)
        except NoConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self._finish(pending, error)
            return
        again = Pending(step, self._plans.epoch, request=pending.request, done=pending.done, taken=taken)
        again.lost = pending.lost
        again.held_until = pending.held_until
        self._cache.submit(again)

    async def _load(self, waiting: Sequence[CachedJob]) -> None:
        async with self._loads.use() as connection:
            jobs = await self._store.load_jobs(connection, {cell.job_id for cell in waiting})
            loaded = await self._loader.load(
                connection,
                [(jobs[cell.generation], cell.events) for cell in waiting if cell.generation in jobs],
            )
        for cell in waiting:
            job = loaded.get(cell.generation)
            if job is None or not job.live:
                # Ended, scrubbed or replaced: the rows that these events came from went with it. If that was by a
                # commit of this process whose answer was lost, nobody here has been told yet.
                self._recheck(cell.generation)
                self._cache.drop_events(cell)
                cell.job = None
                cell.busy = False
                self._cache.forget(cell)
                continue
            cell.job = job
            self._cache.submit(cell)


UNCOMMITTED_LIMIT: Final = 300
"""Jobs whose events may wait for a commit before workers claim more: enough for the next commits."""

SECOND_COMMIT: Final = 8
"""Ready steps from which a second commit runs beside the first."""

LOOK_AROUND: Final = 5.0
"""Seconds between two looks, under load, whether the app has other engines."""

HELD_UP: Final = 1.0
"""Seconds after which a commit is held up by something."""

STOPPED: Final = "this instance has been stopped; whether the job was created is not known"


def _words(error: BaseException) -> str:
    """An error in words that can be stored."""
    return (str(error) or type(error).__name__).encode("utf-8", "replace").decode()[:1_000]


def _now() -> datetime:
    return datetime.now(UTC)
