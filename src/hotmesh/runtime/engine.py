"""Advances the jobs of an app: the main flow is notified → lock → load → advance → commit → tell.

Two ways in. A job that this process created or last advanced is in memory (`Cell`): its events become a step at once,
and the step goes out with the next group commit. Anything else arrives on the engine stream or as a due timer: the
jobs are locked, loaded, advanced and committed in one transaction. Both meet in the compare-and-set of the job row.

Nothing in memory is needed for correctness. A process that dies leaves rows: work whose lease lapses, messages that
become visible to others within `HANDOVER` seconds, timers and waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec
from anyio.abc import TaskGroup

from hotmesh.core.advance import Limits, StartRequest, advance, start
from hotmesh.core.compile import Plan
from hotmesh.core.job import Event, Job, MessageReceipt, Place
from hotmesh.core.mapping import Environment
from hotmesh.core.step import Message, Notice, Step
from hotmesh.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    DuplicateJobError,
    HotMeshError,
    VersionNotFoundError,
)
from hotmesh.postgres.rows import HeldWork
from hotmesh.postgres.store import AnsweredElsewhereError, Batch, Committed, DueJob, Store
from hotmesh.runtime import ids
from hotmesh.runtime.statistics import carry_out
from hotmesh.runtime.wake import Wake

if TYPE_CHECKING:
    from hotmesh.postgres.connection import Driver, Link
    from hotmesh.runtime.plans import Plans
    from hotmesh.runtime.settings import Settings
    from hotmesh.runtime.worker import Workers

logger = logging.getLogger("hotmesh.engine")

HANDOVER: Final = 0.5
"""Seconds after which others take a message that this process means to handle from memory."""

RECORD_LIMIT: Final = 256
"""Records kept in memory per job; a longer history is loaded in the parts that a step needs."""

EVENT_LIMIT: Final = 500
"""Events of one job that one step handles, also of those that `lock_due_jobs` hands out: no step is unbounded."""

CLAIM_LIMIT: Final = 100

Tell = Callable[[Notice, Sequence[str]], None]
"""Told of every notice after its commit, with the other members that subscribe to its topic."""


class Cell:
    """A job in memory, with the events that wait for its next step. `busy`: a step of it is on its way."""

    __slots__ = ("alone", "busy", "events", "failures", "generation", "job", "job_id", "job_size", "size")

    def __init__(self, job_id: str, generation: str) -> None:
        self.job_id = job_id
        self.generation = generation
        self.job: Job | None = None
        self.events: list[Event] = []
        self.busy = False
        self.alone = False
        """One event to a step: one of several was answered elsewhere, and which one is not known."""
        self.failures = 0
        self.size = 0
        """Bytes, as far as they are known; `job_size`: those of them that are not records."""
        self.job_size = 0


class Pending:
    """A step on its way to a commit, and what to do with the verdict."""

    __slots__ = (
        "cell",
        "done",
        "epoch",
        "events",
        "local",
        "lost",
        "request",
        "sent",
        "step",
        "taken",
        "token",
    )

    def __init__(
        self,
        step: Step,
        epoch: int,
        *,
        cell: Cell | None = None,
        events: Sequence[Event] = (),
        request: StartRequest | None = None,
        done: Callable[[Job | BaseException], None] | None = None,
        taken: frozenset[str] = frozenset(),
    ) -> None:
        self.step = step
        self.epoch = epoch
        self.cell = cell
        self.events = events
        self.request = request
        self.done = done
        self.taken = taken
        self.local: list[bool] = []
        """For each piece of work of the step: whether a place in a local worker is kept for it."""
        self.token = 0
        """Marks the commit it went out with."""
        self.sent = 0.0
        """When it was last sent, by `time.monotonic`."""
        self.lost = False
        """The answer to a commit of it was lost; it may yet come through."""


class Engine:
    """The engine of one app in one process. `run` is its lifetime."""

    def __init__(
        self,
        store: Store,
        plans: Plans,
        member: str,
        settings: Settings,
        environment: Environment,
        workers: Workers,
        tell: Tell,
        *,
        readonly: bool = False,
    ) -> None:
        self._store = store
        self._plans = plans
        self._member = member
        self._settings = settings
        self._environment = environment
        self._workers = workers
        self._tell = tell
        self._readonly = readonly
        self._limits = Limits(max_cycles=settings.max_cycles, expire=settings.expire)
        self._cells: OrderedDict[str, Cell] = OrderedDict()
        self._bytes = 0
        self._ready: deque[Cell | Pending] = deque()
        self._unloaded: list[Cell] = []
        self._restarts: list[tuple[Pending, frozenset[str]]] = []
        self._work_to_do = anyio.Event()
        self._something_to_load = anyio.Event()
        self._stream_wake = Wake(settings.poll)
        self._commits = [store.link("commit 1"), store.link("commit 2")]
        self._loads = store.link("load")
        self._stream = store.link("stream")
        self._stopping = False
        self._committing = 0
        self._closed = False
        self._loading = False
        """Jobs are on their way into memory, with events that are in neither queue meanwhile."""
        self._losses = 0
        """Connections lost in a row, without a commit in between."""
        self._lost_since = 0.0
        self._idle = anyio.Event()

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Start the loops in the instance's task group; cancelling them rolls back what is not committed."""
        for number, link in enumerate(self._commits):
            tasks.start_soon(self._commit_loop, number, link, name=f"commit {number}")
        tasks.start_soon(self._load_loop, name="load")
        if not self._readonly:
            tasks.start_soon(self._stream_loop, name="stream")

    async def drain(self) -> None:
        """Take no more from the stream, and return once every step in memory has been committed."""
        self._stopping = True
        self._stream_wake.set()
        while self._ready or self._committing or self._unloaded or self._restarts or self._loading:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def close(self) -> None:
        self._closed = True
        for item in (*self._ready, *(pending for pending, _ in self._restarts)):
            if isinstance(item, Pending):
                self._finish(item, HotMeshError(STOPPED))
        for link in (*self._commits, self._loads, self._stream):
            await link.close()

    def place_free(self) -> None:
        """A local worker can take more of what overflowed."""
        self._work_to_do.set()

    def wake(self) -> None:
        """There may be something on the engine stream."""
        self._stream_wake.set()

    # -- beginnings --------------------------------------------------------------------------------------

    async def start(self, request: StartRequest) -> Job:
        """Create a job; returns once it is durable.

        Raises TopicNotFoundError, MappingError, DuplicateJobError, AppNotFoundError, ConnectionLostError.
        """
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

        self._submit(Pending(step, self._plans.epoch, request=request, done=done))
        return await verdict

    def _start_step(self, plan: Plan, request: StartRequest, taken: frozenset[str]) -> Step:
        return start(plan, request, _now(), self._environment, taken=taken, limits=self._limits)

    def deliver(self, job_id: str, generation: str, event: Event) -> None:
        """Something happened to a job, known to this process first."""
        cell = self._cells.get(generation)
        if cell is None:
            cell = self._cells[generation] = Cell(job_id, generation)
        else:
            self._cells.move_to_end(generation)
        cell.events.append(event)
        if not cell.busy:
            cell.busy = True
            self._queue(cell)

    def _submit(self, item: Cell | Pending) -> None:
        self._ready.append(item)
        self._work_to_do.set()

    def _queue(self, cell: Cell) -> None:
        """A cell with events goes to the next commit; without what they need, it is loaded first."""
        if self._loaded(cell):
            self._submit(cell)
        else:
            self._unloaded.append(cell)
            self._something_to_load.set()

    def _loaded(self, cell: Cell) -> bool:
        job = cell.job
        if job is None or self._plans.known_for(job) is None:
            return False
        return job.covered is None or all(map(job.covers, cell.events))

    # -- the group commit --------------------------------------------------------------------------------

    async def _commit_loop(self, number: int, link: Link) -> None:
        """Commit whatever is ready, all of it at once; what becomes ready meanwhile goes with the next.

        The second loop joins only when there is enough for a batch of its own: two small commits cost more than one.
        """
        enough = 1 if number == 0 else SECOND_COMMIT
        while True:
            if len(self._ready) < enough and not (number == 0 and self._workers.can_take):
                if not self._ready and not self._committing:
                    self._idle.set()
                if self._work_to_do.is_set():
                    self._work_to_do = anyio.Event()
                await self._work_to_do.wait()
                continue
            batch = self._collect()
            if not batch and not self._workers.can_take:
                continue
            self._committing += 1
            try:
                await self._commit(link, batch)
            except BaseException:
                for pending in batch:
                    self._finish(pending, HotMeshError(STOPPED))
                raise
            finally:
                self._committing -= 1
            if self._ready:
                self._work_to_do.set()

    def _collect(self) -> list[Pending]:
        """Turn what is ready into steps; all events that a job has by now become one step.

        With nothing in flight, half of a larger batch is left to the other loop: while Postgres writes one half,
        this process prepares the other.
        """
        batch: list[Pending] = []
        most = self._settings.batch
        if not self._committing and len(self._ready) >= 2 * SECOND_COMMIT:
            most = min(most, (len(self._ready) + 1) // 2)
        while self._ready and len(batch) < most:
            item = self._ready.popleft()
            if isinstance(item, Cell):
                pending = self._compute(item)
                if pending is not None:
                    batch.append(pending)
            else:
                batch.append(item)
        return batch

    def _compute(self, cell: Cell, taken: frozenset[str] = frozenset()) -> Pending | None:
        job = cell.job
        plan = None if job is None else self._plans.known_for(job)
        if job is None or plan is None or not self._loaded(cell):
            self._queue(cell)
            return None
        if cell.alone:
            events, cell.events = cell.events[:1], cell.events[1:]
            cell.alone = bool(cell.events)
        else:
            events, cell.events = cell.events[:EVENT_LIMIT], cell.events[EVENT_LIMIT:]
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
        except (ConnectionLostError, ConnectionFailedError) as error:
            await self._after_loss(link, batch, error)
        except AnsweredElsewhereError:
            if len(batch) > 1:
                for pending in batch:
                    await self._commit(link, [pending])
            else:
                self._answered_elsewhere(batch[0])
        except Exception as error:  # noqa: BLE001 - whatever it is, the other jobs go on
            if not batch:
                # Nothing but reservations of work that overflowed, which is given back.
                logger.warning("work could not be reserved", extra={"error": str(error)})
                await anyio.sleep(0.1)
            elif len(batch) > 1:
                for pending in batch:
                    await self._commit(link, [pending])
            elif _passing(error) and batch[0].cell is not None:
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
        overflow = self._workers.take()
        if not batch and not overflow:
            return
        try:
            await self._send(link, batch, overflow, epoch)
        except BaseException:
            self._workers.give_back(overflow)
            raise

    async def _send(self, link: Link, batch: list[Pending], overflow: list[HeldWork], epoch: int) -> None:
        """One commit: these steps, and reservations for work that overflowed before."""
        token = ids.token()
        for pending in batch:
            pending.token = token
        since = time.monotonic()
        try:
            arguments, wake = self._encode(batch)
            for work in overflow:
                arguments.reserve(work.generation, work.activity_id, work.dimension)
            async with link.use() as connection:
                committed = await self._store.commit(
                    connection, arguments, self._member, epoch, token, self._settings.lease, wake
                )
        except (ConnectionLostError, ConnectionFailedError):
            # Whether it was written is not known; the places in local workers are kept until it is.
            raise
        except BaseException:
            self._unlocal(*batch)
            raise
        if committed.epoch != epoch:
            self._unlocal(*batch)
            self._workers.give_back(overflow)
            overflow.clear()
            await self._plans.refresh()
            self._recompute(batch)
            return
        self._losses = 0
        self._workers.taken(overflow, committed.held, since)
        overflow.clear()  # settled: whatever goes wrong from here on
        for number, pending in enumerate(batch):
            refusal = committed.refused.get(number)
            if refusal is None:
                self._applied(pending, committed, arguments)
            else:
                self._unlocal(pending)
                await self._refused(pending, *refusal)
        if committed.woken:
            self._stream_wake.set()

    def _encode(self, batch: list[Pending]) -> tuple[Batch, str | None]:
        arguments = Batch()
        topics: set[str] = set()
        for number, pending in enumerate(batch):
            pending.sent = time.monotonic()
            pending.local = [self._workers.reserve(work.topic) for work in pending.step.work]
            for work, local in zip(pending.step.work, pending.local, strict=True):
                if not local:
                    topics.add(work.topic)
            arguments.add(number, pending.step, local=pending.local, send_delay=self._send_delay)
        return arguments, self._workers.wake_text(topics)

    def _send_delay(self, generation: str | None) -> float:
        return HANDOVER if generation is not None and generation in self._cells else 0.0

    def _unlocal(self, *batch: Pending) -> None:
        """Give back the places that were kept in local workers for steps that did not commit."""
        for pending in batch:
            for work, local in zip(pending.step.work, pending.local, strict=False):
                if local:
                    self._workers.unreserve(work.topic)
            pending.local = []

    # -- verdicts ----------------------------------------------------------------------------------------

    def _applied(self, pending: Pending, committed: Committed, arguments: Batch) -> None:
        step = pending.step
        now = committed.committed_at
        own = pending.cell
        for change in step.jobs:
            job = change.job
            if change.ended:
                gone = self._cells.pop(job.generation, None)
                if gone is not None:
                    self._bytes -= gone.size
                    gone.size = gone.job_size = 0
                    gone.job = None
                continue
            cell = self._cells.get(job.generation)
            if cell is None:
                if self._readonly or not job.live:
                    continue
                cell = (
                    own
                    if own is not None and own.generation == job.generation
                    else Cell(job.job_id, job.generation)
                )
                self._cells[job.generation] = cell
            # A step of another way in may have been told first.
            if cell.job is None or cell.job.seq < job.seq:
                cell.job = job
            size = max(arguments.sizes.get(job.generation, 0), cell.job_size)
            grown = size - cell.job_size + arguments.record_sizes.get(job.generation, 0)
            cell.job_size = size
            cell.size += grown
            self._bytes += grown
        for work, local in zip(step.work, pending.local, strict=True):
            if local:
                self._workers.begin(work, now, pending.sent)
            else:
                self._workers.leave(work, now)
        for message in step.messages:
            self._handed_over(message)
        for timer in step.timers:
            self._stream_wake.set_in(timer.delay)
        for notice in step.notices:
            self._tell(notice, committed.listeners)
        if pending.done is not None:
            pending.done(step.jobs[0].job)
        if own is not None:
            own.failures = 0
            self._released(own)
        self._evict()

    def _handed_over(self, message: Message) -> None:
        """A message for a job that is in memory here is an event at once; others are found on the stream."""
        generation = message.generation
        if generation is None or generation not in self._cells:
            self._stream_wake.set()
            return
        event = Event(
            message.kind,
            message.activity_id,
            message.dimension,
            message.status,
            message.code,
            message.data,
            message.message_id if message.kind == "result" else "",
            MessageReceipt(message.message_id),
        )
        self.deliver(message.job_id, generation, event)

    def _released(self, cell: Cell) -> None:
        """A step of the cell is through: on with the events that came meanwhile."""
        if self._cells.get(cell.generation) is not cell:
            # The job has ended; what came late means nothing any more, and its rows went with it.
            cell.events = []
        job = cell.job
        if job is not None and sum(map(len, job.records.values())) > RECORD_LIMIT:
            cell.job = None
            if self._cells.get(cell.generation) is cell:
                self._bytes -= cell.size
                cell.size = cell.job_size = 0
        if cell.events:
            self._queue(cell)
            return
        cell.busy = False
        if cell.job is None:
            self._forget(cell)

    def _forget(self, cell: Cell) -> None:
        if self._cells.get(cell.generation) is cell:
            del self._cells[cell.generation]
            self._bytes -= cell.size
            cell.size = cell.job_size = 0

    async def _refused(self, pending: Pending, reason: str, taken: str) -> None:
        if reason == "lost":
            # Another process advanced the job: read it again, and apply the events to what it is now.
            self._retry_cell(pending, reload=True)
            return
        request = pending.request
        try:
            if pending.lost and await self._is_ours(pending):
                # The commit whose answer was lost came through after all.
                pending.local = [False] * len(pending.step.work)
                self._applied(pending, self._unknown(), Batch())
                return
            freed = await self._store.free_expired_ids([taken]) > 0
        except (ConnectionLostError, ConnectionFailedError):
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
            self._submit(again)

    def _restart(self, pending: Pending, taken: frozenset[str]) -> None:
        """Compute a start again; the active version may have to be read first."""
        self._restarts.append((pending, taken))
        self._something_to_load.set()

    def _recompute(self, batch: Sequence[Pending]) -> None:
        """The definitions changed: compute these steps again under what holds now."""
        for pending in batch:
            self._resubmit(pending, pending.taken)

    def _retry_cell(self, pending: Pending, *, reload: bool) -> None:
        cell = pending.cell
        if cell is None:
            return
        cell.events = [*pending.events, *cell.events]
        if reload:
            cell.job = None
            self._cells[cell.generation] = cell
        self._queue(cell)

    def _answered_elsewhere(self, pending: Pending) -> None:
        """A row that the step answers is gone, so what it reports does not count."""
        cell = pending.cell
        if cell is None:
            return
        if len(pending.events) > 1:
            cell.alone = True
            self._retry_cell(pending, reload=True)
            return
        for event in pending.events:
            logger.warning(
                "event dropped, another process was first",
                extra={"job_id": cell.job_id, "activity_id": event.activity_id, "kind": event.kind},
            )
        self._cells[cell.generation] = cell
        cell.job = None
        self._released(cell)

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
        delay = min(0.05 * 2**cell.failures, self._settings.reconnect_max)
        logger.warning(
            "step not stored yet", extra={"job_id": cell.job_id, "delay": delay, "error": str(error)}
        )
        asyncio.get_running_loop().call_later(delay, self._later, pending)

    def _later(self, pending: Pending) -> None:
        self._retry_cell(pending, reload=True)

    def _fail_events(self, cell: Cell, events: Sequence[Event], message: str) -> None:
        """Let events fail their activities: what they report can be neither applied nor stored."""
        cell.failures += 1
        if cell.failures > self._settings.poison_threshold:
            # Not even the error can be stored; the rows stay, and others will come to the same end by the stream.
            cell.job = None
            cell.events = []
            self._released(cell)
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
            )
            if e.kind in ("answer", "added", "result", "signal", "timer")
            else Event("interrupt", data={"reason": failure["message"], "code": 500}, receipt=e.receipt)
            for e in events
        ] + cell.events
        self._queue(cell)

    async def _after_loss(self, link: Link, batch: list[Pending], error: BaseException) -> None:
        """The connection broke: find out which steps were written, and carry on with the others.

        Waiting callers get ConnectionLostError only once `connect_timeout` has passed without a connection.
        """
        written: dict[str, tuple[str, int, int]] = {}
        # Reading may work where writing does not: a server that is read-only must not be asked in a busy loop.
        delay, waited = min(0.1 * 2**self._losses, self._settings.reconnect_max), 0.0
        if self._losses:
            await anyio.sleep(delay)
            if asyncio.get_running_loop().time() - self._lost_since >= self._settings.connect_timeout:
                self._give_up_starts(batch, error)
        else:
            self._lost_since = asyncio.get_running_loop().time()
        self._losses = min(self._losses + 1, 10)
        while True:
            try:
                async with link.use() as connection:
                    written = await self._store.written(
                        connection, [pending.step.jobs[0].job.job_id for pending in batch]
                    )
                break
            except (ConnectionLostError, ConnectionFailedError):
                await anyio.sleep(delay)
                waited += delay
                delay = min(delay * 2, self._settings.reconnect_max)
                if waited >= self._settings.connect_timeout:
                    self._give_up_starts(batch, error)
                    waited = float("-inf")
        for pending in batch:
            job = pending.step.jobs[0].job
            if written.get(job.job_id) == (job.generation, job.seq, pending.token):
                self._applied(pending, self._unknown(), Batch())
            else:
                pending.lost = True
                self._unlocal(pending)
                if pending.request is not None:
                    if pending.done is not None:
                        self._submit(pending)
                else:
                    self._retry_cell(pending, reload=True)
        self._stream_wake.set()

    def _unknown(self) -> Committed:
        """The verdict on a step that was found written after its answer was lost."""
        return Committed({}, self._plans.epoch, woken=True, listeners=(), committed_at=_now())

    async def _is_ours(self, pending: Pending) -> bool:
        """Whether the job that a start should create is the one that an earlier commit of the start created."""
        job = pending.step.jobs[0].job
        async with self._store.connection() as connection:
            written = await self._store.written(connection, [job.job_id])
        return pending.request is not None and written.get(job.job_id, ("",))[0] == job.generation

    def _give_up_starts(self, batch: list[Pending], error: BaseException) -> None:
        for pending in batch:
            if pending.request is not None:
                self._finish(pending, ConnectionLostError(str(error)))
                pending.done = None
        for item in [item for item in self._ready if isinstance(item, Pending) and item.request is not None]:
            self._ready.remove(item)
            self._finish(item, ConnectionLostError(str(error)))

    def _finish(self, pending: Pending, error: BaseException) -> None:
        if pending.done is not None:
            pending.done(error)

    # -- memory ------------------------------------------------------------------------------------------

    def _evict(self) -> None:
        """Forget the jobs that have been idle longest; each costs one load when something happens to it."""
        cells, settings = self._cells, self._settings
        if len(cells) <= settings.cache_jobs and self._bytes <= settings.cache_bytes:
            return
        for generation in list(cells):
            if len(cells) <= settings.cache_jobs * 9 // 10 and self._bytes <= settings.cache_bytes * 9 // 10:
                return
            cell = cells[generation]
            if not cell.busy:
                self._bytes -= cell.size
                del cells[generation]

    # -- loading -----------------------------------------------------------------------------------------

    async def _load_loop(self) -> None:
        """Load the jobs that have events but are not in memory, all that wait at once."""
        while True:
            if not self._unloaded and not self._restarts:
                self._something_to_load = anyio.Event()
                await self._something_to_load.wait()
            restarts, self._restarts = self._restarts, []
            waiting, self._unloaded = self._unloaded, []
            self._loading = True
            try:
                while restarts:
                    await self._start_again(*restarts[-1])
                    restarts.pop()
                if waiting:
                    await self._load(waiting)
            except (ConnectionLostError, ConnectionFailedError):
                self._restarts += restarts
                self._unloaded = [*(cell for cell in waiting if cell.busy and cell.events), *self._unloaded]
                await anyio.sleep(0.1)
            except Exception as error:
                logger.error("jobs could not be loaded, loading them one by one", exc_info=error)
                self._restarts += restarts
                await self._load_singly(waiting)
            self._loading = False
            self._work_to_do.set()

    async def _load_singly(self, waiting: Sequence[Cell]) -> None:
        """Load jobs apart from each other; one that cannot be loaded is left to its rows, which come again."""
        for cell in waiting:
            try:
                await self._load([cell])
            except (ConnectionLostError, ConnectionFailedError):
                self._unloaded.append(cell)
            except Exception as error:
                logger.error("job could not be loaded", extra={"job_id": cell.job_id}, exc_info=error)
                cell.events, cell.job, cell.busy = [], None, False
                self._forget(cell)

    async def _start_again(self, pending: Pending, taken: frozenset[str]) -> None:
        if pending.request is None:
            raise AssertionError("only a start is started again")
        try:
            plan = await self._plans.active()
            step = self._start_step(plan, pending.request, taken)
        except (ConnectionLostError, ConnectionFailedError):
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self._finish(pending, error)
            return
        again = Pending(step, self._plans.epoch, request=pending.request, done=pending.done, taken=taken)
        again.lost = pending.lost
        self._submit(again)

    async def _load(self, waiting: Sequence[Cell]) -> None:
        async with self._loads.use() as connection:
            jobs = await self._store.load_jobs(connection, {cell.job_id for cell in waiting})
            loaded = await self._with_records(
                connection,
                [(jobs[cell.generation], cell.events) for cell in waiting if cell.generation in jobs],
            )
        for cell in waiting:
            job = loaded.get(cell.generation)
            if job is None or not job.live:
                # Ended, scrubbed or replaced: the rows that these events came from went with it.
                cell.events = []
                cell.job = None
                cell.busy = False
                self._forget(cell)
                continue
            cell.job = job
            self._submit(cell)

    async def _with_records(
        self, connection: Driver, wanted: Sequence[tuple[Job, Sequence[Event]]]
    ) -> dict[str, Job]:
        """The jobs with the records that their events may need."""
        places = []
        covered: dict[str, frozenset[Place]] = {}
        for job, events in wanted:
            plan = await self._plan_of(job)
            if plan is None:
                continue
            for event in events:
                activity = plan.activities.get(event.activity_id)
                if activity is not None:
                    places += [(job.generation, need, event.dimension) for need in activity.needs]
            covered[job.generation] = frozenset((event.activity_id, event.dimension) for event in events)
        records = await self._store.load_records(connection, places)
        return {
            job.generation: _with(job, records.get(job.generation, {}), covered[job.generation])
            for job, _ in wanted
            if job.generation in covered
        }

    async def _plan_of(self, job: Job) -> Plan | None:
        try:
            return self._plans.known_for(job) or await self._plans.for_job(job)
        except VersionNotFoundError:
            logger.error("job of an unknown version", extra={"job_id": job.job_id, "version": job.version})
            return None

    # -- the stream --------------------------------------------------------------------------------------

    async def _stream_loop(self) -> None:
        """Handle what is due on the engine stream: at once when told, when the next is due, and by polling."""
        failures = 0
        while not self._stopping:
            try:
                handled = await self.run_once()
                failures = 0
                while handled < CLAIM_LIMIT and not self._stopping:
                    async with self._stream.use() as connection:
                        due, broadcasts = await self._store.next_event_at(connection)
                        if broadcasts and await carry_out(
                            self._store, connection, await self._plans.active(), self._environment
                        ):
                            break
                    # What is due but was not handled is locked by another engine.
                    if await self._stream_wake.wait(None if due is None else max(due, 0.02)):
                        break
                    if due is not None and due <= self._settings.poll:
                        break
            except (ConnectionLostError, ConnectionFailedError) as error:
                failures += 1
                logger.warning("engine stream: no connection", extra={"error": str(error)})
                await anyio.sleep(min(0.1 * 2**failures, self._settings.reconnect_max))
            except Exception as error:
                failures += 1
                logger.error("engine stream could not be read", exc_info=error)
                await anyio.sleep(min(0.1 * 2**failures, self._settings.reconnect_max))

    async def run_once(self) -> int:
        """Lock, load, advance and commit what is due; how many jobs there were."""
        self._stream_wake.clear()
        async with self._stream.use() as connection:
            try:
                return await self._handle_due(connection, CLAIM_LIMIT)
            except (ConnectionLostError, ConnectionFailedError):
                raise
            except AnsweredElsewhereError:
                # Somebody else handled one of the events meanwhile: look again.
                logger.debug("events were handled elsewhere")
            except Exception as error:
                logger.warning("batch of due jobs failed, handling them one by one", exc_info=error)
        handled = 0
        async with self._stream.use() as connection:
            for _ in range(CLAIM_LIMIT):
                found = await self._handle_one(connection)
                handled += found
                if not found:
                    break
        return handled

    async def _handle_one(self, connection: Driver) -> int:
        """One due job; if it fails, its events are put off, and given up after some tries."""
        due: list[DueJob] = []
        try:
            return await self._handle_due(connection, 1, due)
        except (ConnectionLostError, ConnectionFailedError):
            raise
        except AnsweredElsewhereError:
            return 0
        except Exception as error:
            logger.error(
                "events could not be handled",
                extra={"job_id": due[0].job.job_id if due else None},
                exc_info=error,
            )
            if not due or _passing(error):
                raise
            attempt = max((event.attempt for event in due[0].events), default=0)
            outcome = await self._store.postpone_events(
                connection,
                due[0].job.generation,
                min(0.1 * 4**attempt, 60.0),
                f"Poison message detected: the engine could not handle it ({error})",
                self._settings.poison_threshold,
            )
            logger.warning("events postponed", extra={"job_id": due[0].job.job_id, "outcome": outcome})
            return 1

    async def _handle_due(self, connection: Driver, limit: int, found: list[DueJob] | None = None) -> int:
        results: list[tuple[Pending, Committed, Batch]] = []
        async with self._places_of(results), connection.transaction():
            due = await self._store.lock_due_jobs(connection, limit)
            if found is not None:
                found += due
            due = [item for item in due if item.events]
            if not due:
                return 0
            jobs = {item.job.generation: item for item in due}
            loaded = await self._jobs_of(connection, due)
            taken: dict[str, frozenset[str]] = {}
            todo = [generation for generation in jobs if generation in loaded]
            while todo:
                batch = []
                for generation in todo:
                    job = loaded[generation]
                    plan = await self._plan_of(job)
                    if plan is None:
                        continue
                    events = [item.event for item in jobs[generation].events]
                    step = advance(
                        plan,
                        job,
                        events,
                        _now(),
                        self._environment,
                        taken=taken.get(generation, frozenset()),
                        limits=self._limits,
                    )
                    batch.append(Pending(step, self._plans.epoch, events=events))
                todo = await self._commit_locked(connection, batch, taken, results)
        for pending, committed, arguments in results:
            self._adopt(pending)
            self._applied(pending, committed, arguments)
            if committed.woken:
                self._stream_wake.set()
        if any(len(item.events) >= EVENT_LIMIT for item in due):
            self._stream_wake.set()  # there is more of it
        return len(due)

    @asynccontextmanager
    async def _places_of(self, results: list[tuple[Pending, Committed, Batch]]) -> AsyncIterator[None]:
        """Give back the places kept in local workers if the transaction that holds these steps fails."""
        try:
            yield
        except BaseException:
            self._unlocal(*(pending for pending, _, _ in results))
            raise

    async def _commit_locked(
        self,
        connection: Driver,
        batch: list[Pending],
        taken: dict[str, frozenset[str]],
        results: list[tuple[Pending, Committed, Batch]],
    ) -> list[str]:
        """Commit steps of locked jobs; returns the generations whose steps have to be computed again."""
        arguments, wake = self._encode(batch)
        epoch = self._plans.epoch
        try:
            committed = await self._store.commit(
                connection, arguments, self._member, epoch, ids.token(), self._settings.lease, wake
            )
        except BaseException:
            self._unlocal(*batch)
            raise
        if committed.epoch != epoch:
            self._unlocal(*batch)
            await self._plans.refresh()
            return [pending.step.jobs[0].job.generation for pending in batch]
        again = []
        for number, pending in enumerate(batch):
            refusal = committed.refused.get(number)
            if refusal is None:
                results.append((pending, committed, arguments))
                continue
            self._unlocal(pending)
            generation = pending.step.jobs[0].job.generation
            if not await connection.fetchval(
                self._store.bound("select mesh.free_expired_ids($1, $2)"), self._store.app_id, [refusal[1]]
            ):
                taken[generation] = taken.get(generation, frozenset()) | {refusal[1]}
            again.append(generation)
        return again

    async def _jobs_of(self, connection: Driver, due: Sequence[DueJob]) -> dict[str, Job]:
        """The locked jobs with what their events need: from memory where it is current, else loaded."""
        found: dict[str, Job] = {}
        wanted = []
        for item in due:
            cell = self._cells.get(item.job.generation)
            known = None if cell is None else cell.job
            current = known is not None and known.seq == item.job.seq
            if known is not None and current and all(known.covers(due.event) for due in item.events):
                found[item.job.generation] = known
            else:
                wanted.append((item.job, [event.event for event in item.events]))
        return {**found, **await self._with_records(connection, wanted)}

    def _adopt(self, pending: Pending) -> None:
        """Keep a job that came by the stream in memory if it has work here."""
        job = pending.step.jobs[0].job
        if job.generation not in self._cells and not any(pending.local):
            return
        if job.live:
            self._cells.setdefault(job.generation, Cell(job.job_id, job.generation))


SECOND_COMMIT: Final = 8
"""Ready steps from which a second commit runs beside the first."""


STOPPED: Final = "this instance has been stopped; whether the job was created is not known"


def _passing(error: BaseException) -> bool:
    """Whether it is the state of the database that refuses a step, and not the step: deadlock, disk full, time-out."""
    sqlstate = getattr(error, "sqlstate", None) or ""
    return sqlstate[:2] in ("40", "53") or sqlstate in ("55P03", "57014")


def _words(error: BaseException) -> str:
    """An error in words that can be stored."""
    return (str(error) or type(error).__name__).encode("utf-8", "replace").decode()[:1_000]


def _with(job: Job, records: Any, covered: frozenset[Place]) -> Job:
    return msgspec.structs.replace(job, records=records, covered=covered)


def _now() -> datetime:
    return datetime.now(UTC)
