"""Runs the callbacks of this process: work from memory (the local fast path) and work claimed from the stream.

A worker holds a message from its reservation to its answer. The lease is renewed by a thread of its own, so that a
callback which blocks the event loop keeps it. An answer counts only while the message is still held.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from hotmesh.core.advance.advance import LOST
from hotmesh.core.duration import seconds
from hotmesh.core.state.job import Event, WorkReceipt
from hotmesh.core.state.retry import RetryPolicy
from hotmesh.core.state.step import Work
from hotmesh.core.wire import normalise
from hotmesh.errors import (
    CodecError,
    ConfigError,
    DatabaseError,
    NoConnectionError,
    PayloadError,
)
from hotmesh.postgres.connect.connection import backoff
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime import ids
from hotmesh.runtime.messages import Response, StreamData, read_response
from hotmesh.runtime.pace import Pace
from hotmesh.runtime.telemetry.metrics import add
from hotmesh.runtime.wake import EVERY_TOPIC, Wake, work_hint
from hotmesh.runtime.work.answers import Answers
from hotmesh.runtime.work.lost_reservations import LostReservations
from hotmesh.runtime.work.outcome import error_object, is_cancelled, message_from, raised, timed_out
from hotmesh.runtime.work.worker import Worker, as_coroutine, is_asynchronous, retry_delay, retry_policy

if TYPE_CHECKING:
    from hotmesh.postgres.store import Store
    from hotmesh.runtime.settings import Settings
    from hotmesh.runtime.telemetry.metrics import Metrics
    from hotmesh.runtime.telemetry.tracing import Telemetry
    from hotmesh.runtime.work.lease import LeaseKeeper

logger = logging.getLogger("hotmesh.worker")


@dataclass(slots=True)
class _Served:
    """One topic, or one workflow name of it, as this process serves it."""

    worker: Worker
    most: int
    retry: RetryPolicy | None
    callback: Callable[[StreamData], Awaitable[Any]]
    slots: int
    """Callbacks that may run at once. `most` is the same, unless a rate leaves only the next slot open, or none."""
    timeout: float | None = None
    pace: Pace | None = None
    counts: dict[int, int] = field(default_factory=dict)
    """Answers so far, by code."""
    running: int = 0
    """Slots taken: callbacks that run, and those kept for steps on their way to a commit."""
    backlog: bool = True
    """There may be rows on the stream that wait for a slot here."""
    overflow: deque[HeldWork] = field(default_factory=deque)
    """Work of this process's own steps that found no slot. Its rows are for everybody; as slots become free, the
    next commit also reserves what nobody else has taken, without a claim of its own."""
    queue: deque[HeldWork] = field(default_factory=deque)
    runners: int = 0
    """Tasks that run callbacks; started when needed and kept, because starting one costs more than a callback."""
    idle: list[asyncio.Future[None]] = field(default_factory=list)


Deliver = Callable[[str, str, Event], None]

WorkSelector = tuple[str, str | None]
"""A topic and the workflow name that a worker takes of it; None: every name that no other worker here takes."""

Claim = Callable[[Any, Mapping[WorkSelector, int], int], Awaitable[list[HeldWork]]]
"""Reserves work, at most so much of each selector, by a reservation."""


@dataclass(frozen=True, slots=True)
class WorkerMetrics:
    """What there is to know about a worker: its answers by code, failed claims in a row, its rate."""

    worker: Worker
    counts: dict[int, int]
    error_count: int
    rate: int


class Workers:
    """All workers of one app in one process. `run` is its lifetime."""

    def __init__(
        self,
        store: Store,
        member: str,
        settings: Settings,
        leases: LeaseKeeper,
        metrics: Metrics,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store = store
        self._member = member
        self._settings = settings
        self._leases = leases
        self._metrics = metrics
        self._telemetry = telemetry
        self._deliver: Deliver | None = None
        self._slot_free: Callable[[], None] = _nothing
        self._behind: Callable[[], bool] = _never
        self._by_stream = False
        self._rate_of: Callable[[str], int] = _unlimited
        self.failures = 0
        """Claims that have failed in a row."""
        self._served: dict[WorkSelector, _Served] = {}
        self._names: dict[str, list[str]] = {}
        """Topic → the workflow names that have workers of their own here."""
        self._wake = Wake(settings.poll * (UNHURRIED if store.keeps_sessions else 1))
        self._claims = store.link("claims")
        self.lost_reservations = LostReservations(
            store, member, settings.lease, lambda: self.topics, self.wake_all
        )
        self._answers = Answers(
            store, member, settings, metrics, leases.release, self._given_back, self._answers_written
        )
        self._claiming = False
        self._tasks: TaskGroup | None = None
        self._stopping = False
        self._idle = anyio.Event()
        self._last_hint: dict[str, float] = {}
        self._running: dict[int, tuple[anyio.CancelScope, float, str]] = {}

    def add(self, worker: Worker) -> None:
        """Serve a topic, or one workflow name of it. Raises ConfigError if this instance serves it already."""
        selector = worker.topic, worker.workflow_name
        if worker.readonly:
            return
        if selector in self._served:
            named = "" if worker.workflow_name is None else f" for workflow name {worker.workflow_name}"
            raise ConfigError(f"this instance already has a worker on topic {worker.topic}{named}")
        if (
            worker.workflow_name is not None
            and (worker.topic, None) in self._served
            and self._tasks is not None
        ):
            # Work of the name may be with that one by now, and nobody could tell whose slot it has.
            raise ConfigError(
                f"topic {worker.topic} has a worker that takes any workflow name; one for {worker.workflow_name} "
                "can only be there from the start: name it in workers= of init"
            )
        most = self._settings.max_concurrency
        if not is_asynchronous(worker.callback):
            most = min(most, MOST_THREADS)
        most = worker.max_concurrency or most
        callback = as_coroutine(worker.callback, most)
        if self._telemetry is not None:
            callback = self._telemetry.traced(callback)
        limit = None if worker.timeout is None else seconds(worker.timeout, name="timeout")
        retry = retry_policy(worker.retry)
        served = self._served[selector] = _Served(worker, most, retry, callback, most, limit)
        if worker.workflow_name is not None:
            self._names.setdefault(worker.topic, []).append(worker.workflow_name)
        self._set_rate(served, self._rate_of(worker.topic))
        self._wake.set()

    def deliver_to(
        self, deliver: Deliver | None, slot_free: Callable[[], None], behind: Callable[[], bool]
    ) -> None:
        """Where answers go: the engine of this process; None: to the engine stream.

        `slot_free` is called when there is a slot for work that overflowed. `behind`: whether many answers still
        wait for their commits.
        """
        self._deliver = deliver
        self._slot_free = slot_free
        self._behind = behind

    @property
    def topics(self) -> list[str]:
        return list(dict.fromkeys(topic for topic, _ in self._served))

    def serves(self, topic: str, workflow_name: str) -> bool:
        """Whether work of this topic and name would be taken here."""
        return self._find(topic, workflow_name) is not None

    def _find(self, topic: str, workflow_name: str) -> _Served | None:
        """Who takes the work here: the worker of its name, else the one that takes any."""
        if topic in self._names:
            named = self._served.get((topic, workflow_name))
            if named is not None:
                return named
        return self._served.get((topic, None))

    def _holder(self, work: HeldWork | Work) -> _Served:
        served = self._find(work.topic, work.workflow_name)
        if served is None:
            raise AssertionError(f"nobody here takes {work.workflow_name} of topic {work.topic}")
        return served

    def figures(self) -> list[WorkerMetrics]:
        """What there is to know about each worker."""
        return [
            WorkerMetrics(
                served.worker,
                dict(served.counts),
                self.failures,
                0 if served.pace is None else served.pace.rate,
            )
            for served in self._served.values()
        ]

    # -- rates -------------------------------------------------------------------------------------------

    def apply_rates(self, rate_of: Callable[[str], int]) -> None:
        """The rates have changed: `rate_of` says that of a topic."""
        self._rate_of = rate_of
        for served in self._served.values():
            self._set_rate(served, rate_of(served.worker.topic))

    def answer_by_stream(self, by_stream: bool) -> None:
        """Whether answers go to the engine stream even though this process has an engine, because that is slowed."""
        self._by_stream = by_stream

    def _set_rate(self, served: _Served, rate: int) -> None:
        pace = served.pace
        if rate == 0:
            if pace is not None:
                pace.silence()
                served.pace = None
                served.most = served.slots
                served.backlog = True
                self._freed(served)
            return
        if pace is None:
            served.pace = pace = Pace()
            self._give_up_queue(served)
        if pace.rate != rate:
            pace.change(rate)
        self._open(served, pace)

    def _open(self, served: _Served, pace: Pace) -> None:
        """Leave one slot open if the next message may start, else none until it may."""
        if served.pace is not pace:
            return
        if pace.left() > 0:
            served.most = 0
            pace.call(lambda: self._open(served, pace))
            return
        closed = served.most <= served.running
        served.most = min(served.slots, served.running + 1)
        if closed and served.most > served.running:
            self._announce_slot(served)

    def running_topics(self) -> list[str]:
        """The topic of each callback that runs."""
        return [topic for _, _, topic in self._running.copy().values()]

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Start the loops in the instance's task group."""
        self._tasks = tasks
        tasks.start_soon(self._claim_loop, name="claim work")
        tasks.start_soon(self._answers.run, name="answer work")
        tasks.start_soon(self._watch_loop, name="watch callbacks")
        tasks.start_soon(self.lost_reservations.run, name="look for lost reservations")

    async def drain(self, grace: float) -> None:
        """Claim nothing more, give back what has not started, and wait for running callbacks."""
        self._stopping = True
        self._wake.set()
        for served in self._served.values():
            self._give_up_queue(served)
        with anyio.move_on_after(grace):
            while self._busy():
                self._idle = anyio.Event()
                await self._idle.wait()
        for scope, _, _ in list(self._running.values()):
            scope.cancel()
        with anyio.move_on_after(1.0):
            while self._busy():
                self._idle = anyio.Event()
                await self._idle.wait()

    async def give_back_held(self) -> None:
        """Give back whatever this instance still holds: of callbacks that do not end, of claims that were not answered."""
        if not self._served:
            return
        try:
            async with self._claims.use() as connection:
                count = await self._store.give_back_work(connection, self._member, self.topics)
            if count:
                logger.warning("work given back unfinished", extra={"count": count})
        except DatabaseError as error:
            # The leases lapse.
            logger.warning("work could not be given back", extra={"error": str(error)})

    def _given_back(self, works: Sequence[HeldWork]) -> None:
        """These rows are for everybody again, or will be."""
        for work in works:
            self._leases.release(work.key)
            self._holder(work).backlog = True
        self._wake.set()

    def _answers_written(self) -> None:
        if self._stopping:
            self._idle.set()

    def _busy(self) -> bool:
        return bool(self._running or self._answers.busy or self._claiming)

    async def close(self) -> None:
        for served in self._served.values():
            if served.pace is not None:
                served.pace.silence()
        await self._claims.close()
        await self.lost_reservations.close()
        await self._answers.close()

    # -- what the engine asks ----------------------------------------------------------------------------

    def hold_slot(self, work: Work) -> bool:
        """Keep a slot for work that is about to be committed; False: the row is for everybody."""
        served = self._find(work.topic, work.workflow_name)
        if served is None or self._stopping or served.overflow or served.running >= served.most:
            return False
        served.running += 1
        return True

    def overflow(self, work: Work, created_at: datetime | None) -> None:
        """The work is committed as a row for everybody; remember it if this process would take it."""
        served = self._find(work.topic, work.workflow_name)
        if served is None or self._stopping:
            return
        if len(served.overflow) < OVERFLOW_LIMIT:
            served.overflow.append(_held(work, created_at))
        else:
            served.backlog = True
        self._freed(served)

    @property
    def can_take(self) -> bool:
        """Whether there are free slots for work that overflowed."""
        return not self._stopping and any(
            served.overflow and served.running < served.most for served in self._served.values()
        )

    def offer_overflow(self) -> list[HeldWork]:
        """Keep slots for work that overflowed; the caller tries to reserve its rows, and says `overflow_claimed` or `overflow_refused`."""
        found: list[HeldWork] = []
        if self._stopping:
            return found
        for served in self._served.values():
            while served.overflow and served.running < served.most:
                served.running += 1
                found.append(served.overflow.popleft())
        return found

    def overflow_claimed(self, works: Sequence[HeldWork], held: Collection[int], since: float) -> None:
        """Rows were reserved; `held` are the positions of those that nobody else had. `since`: as for `begin`."""
        for position, work in enumerate(works):
            served = self._holder(work)
            if position not in held:
                served.running -= 1
            else:
                self._run(served, work, since)

    def overflow_refused(self, works: Sequence[HeldWork]) -> None:
        """The rows were not reserved after all."""
        for work in reversed(works):
            served = self._holder(work)
            served.running -= 1
            served.overflow.appendleft(work)

    def free_slot(self, work: Work) -> None:
        """Give back a slot that was kept for work."""
        served = self._holder(work)
        served.running -= 1
        self._freed(served)

    def start(self, work: Work, created_at: datetime | None, since: float) -> None:
        """The work is committed and held by this process: run its callback from memory.

        `since`: when its reservation was sent (`time.monotonic`); a commit that had to wait has used up some of it.
        """
        self._run(self._holder(work), _held(work, created_at), since)

    def wake_text(self, left: Collection[Work]) -> str | None:
        """The hint for work that this process leaves to others.

        Topics served here, too, only overflowed: the others are told now and then, so that a busy process does not
        put a notification, which makes commits wait for each other, into each of its commits.
        """
        if not left:
            return None
        now = anyio.current_time()
        wanted = set()
        for topic, name in {(work.topic, work.workflow_name) for work in left}:
            served = self._find(topic, name)
            # A paused worker leaves its work to the others, who have to hear of it as if there were none here.
            if served is not None and served.most:
                if now - self._last_hint.get(topic, -1.0) < OVERFLOW_HINT:
                    continue
                self._last_hint[topic] = now
            wanted.add(topic)
        return work_hint(wanted) if wanted else None

    def wake(self, topics: Collection[str]) -> None:
        """There may be work on these topics."""
        found = False
        for (topic, _), served in self._served.items():
            if topic in topics or EVERY_TOPIC in topics:
                served.backlog = True
                found = True
        if found:
            self._wake.set()

    def wake_all(self) -> None:
        self.wake([EVERY_TOPIC])

    def answers_committed(self, generation: str, events: Iterable[Event]) -> None:
        """What these events report is committed, or given up: the work that they answer need not be held any longer."""
        for event in events:
            if isinstance(event.receipt, WorkReceipt):
                self._leases.release((generation, event.receipt.activity_id, event.receipt.dimension))

    # -- claiming ----------------------------------------------------------------------------------------

    async def _claim_loop(self) -> None:
        """Claim work for free slots: when told, when a slot becomes free, when the next is due, and by polling."""
        failures = 0
        while not self._stopping:
            try:
                claimed = await self.run_once()
                failures = self.failures = 0
                if claimed:
                    continue
                # Most likely there is news at once; a statement now would only be in the way of the answers.
                if await self._wake.wait(BREATH):
                    continue
                due = await self._next_due()
                if not await self._wake.wait(due):
                    # Whatever was announced or not: the next look says whether there is work, and where there is no
                    # slot for it now, it is claimed as soon as there is one.
                    for served in self._served.values():
                        served.backlog = served.backlog or served.running >= served.most
            except NoConnectionError as error:
                failures = self.failures = failures + 1
                logger.warning("worker stream: no connection", extra={"error": str(error)})
                await anyio.sleep(backoff(failures, longest=self._settings.reconnect_max))
            except Exception as error:
                failures = self.failures = failures + 1
                logger.error("worker stream could not be read", exc_info=error)
                await anyio.sleep(backoff(failures, longest=self._settings.reconnect_max))

    async def run_once(self) -> int:
        """Claim what there are free slots for; how much was claimed."""
        self._wake.clear()
        while (self._behind() or self._answers.ahead > UNWRITTEN_LIMIT) and not self._stopping:  # noqa: ASYNC110 - a commit takes as long as a look
            # More would be held, answered and wait in memory until it is committed: others can have it meanwhile.
            await anyio.sleep(0.005)
        if self._stopping:
            return 0
        wanted = [
            selector
            for selector, served in self._served.items()
            if served.backlog and served.running < served.most
        ]
        found = 0
        for selectors, claim in (
            ([selector for selector in wanted if selector[0] not in self._names], self._claim_topics),
            ([selector for selector in wanted if selector[0] in self._names], self._claim_names),
        ):
            if selectors:
                found += await self._claim(selectors, claim)
        return found

    async def _claim(self, selectors: Sequence[WorkSelector], claim: Claim) -> int:
        """Claim work for the free slots of these selectors, and run it; how much it was."""
        limits = {
            selector: self._served[selector].most - self._served[selector].running for selector in selectors
        }
        for selector, limit in limits.items():
            self._served[selector].running += limit
            self._served[selector].backlog = False
        claimed: list[HeldWork] = []
        self._claiming = True
        since = time.monotonic()
        reservation = ids.token()
        try:
            async with self._claims.use() as connection:
                claimed = await claim(connection, limits, reservation)
        except NoConnectionError:
            self.lost_reservations.add(reservation)
            raise
        finally:
            for work in claimed:
                worker = self._holder(work).worker
                limits[worker.topic, worker.workflow_name] -= 1
            self._claiming = bool(claimed)
            self._idle.set()
            for selector, unused in limits.items():
                served = self._served[selector]
                served.running -= unused
                if not unused:
                    served.backlog = True
        unreadable = [work for work in claimed if work.unreadable is not None]
        if unreadable:
            await self._leave(unreadable)
        for work in claimed:
            served = self._holder(work)
            if work.unreadable is not None:
                served.running -= 1
            elif work.delivery > self._settings.poison_threshold and not self._leases.is_answered(work):
                self._bury(served, work)
            else:
                self._run(served, work, since)
        self._claiming = False
        self._idle.set()
        return len(claimed)

    async def _leave(self, unreadable: Sequence[HeldWork]) -> None:
        """Give back work that this process cannot decode, for one that can; it does not count as a failure."""
        logger.error(
            "work cannot be decoded",
            extra={
                "job_id": unreadable[0].job_id,
                "topic": unreadable[0].topic,
                "messages": len(unreadable),
                "error": unreadable[0].unreadable,
            },
        )
        async with self._claims.use() as connection:
            await self._store.postpone_work(
                connection,
                self._member,
                [(w.generation, w.activity_id, w.dimension, UNREADABLE_RETRY, False) for w in unreadable],
                None,
            )

    async def _claim_topics(
        self, connection: Any, limits: Mapping[WorkSelector, int], reservation: int
    ) -> list[HeldWork]:
        most = {topic: limit for (topic, _), limit in limits.items()}
        return await self._store.claim_work(connection, self._member, most, self._settings.lease, reservation)

    async def _claim_names(
        self, connection: Any, limits: Mapping[WorkSelector, int], reservation: int
    ) -> list[HeldWork]:
        wanted = [
            (topic, name, self._names[topic] if name is None else (), limit)
            for (topic, name), limit in limits.items()
        ]
        return await self._store.claim_named_work(
            connection, self._member, wanted, self._settings.lease, reservation
        )

    async def _next_due(self) -> float | None:
        """Seconds until hidden work (a retry, a lapsing lease) becomes visible to a topic with free slots."""
        selectors = [selector for selector, served in self._served.items() if served.running < served.most]
        topics = [topic for topic, _ in selectors if topic not in self._names]
        named = [
            (topic, name, self._names[topic] if name is None else ())
            for topic, name in selectors
            if topic in self._names
        ]
        if not selectors:
            return None
        moments = []
        async with self._claims.use() as connection:
            if topics:
                moments.append(await self._store.next_work_at(connection, topics))
            if named:
                moments.append(await self._store.next_named_work_at(connection, named))
        due = min((moment for moment in moments if moment is not None), default=None)
        if due is None:
            return None
        if due <= self._settings.poll:
            for selector in selectors:
                self._served[selector].backlog = True
        return max(due, 0.005)

    # -- running -----------------------------------------------------------------------------------------

    def _run(self, served: _Served, work: HeldWork, since: float) -> None:
        if self._tasks is None:
            raise AssertionError("workers run only inside an instance")
        if self._leases.is_answered(work):
            # Its lease had lapsed before the answer could be written; now there is time for that again.
            self._leases.hold(work, since)
            served.running -= 1
            return
        if self._stopping or time.monotonic() - since >= self._settings.lease:
            # The instance was stopped while the reservation was on its way, or it has lapsed by now (the commit waited
            # for a lock, or this process stood still): others may have it at once, if they have not yet.
            served.running -= 1
            self._give_up(work)
            return
        if served.pace is not None:
            if not served.pace.admit():
                # Reserved before the rate was set, or before it was lowered.
                served.running -= 1
                self._give_up(work)
                self._open(served, served.pace)
                return
            served.most = 0
        self._leases.hold(work, since)
        served.queue.append(work)
        while served.idle:
            waiting = served.idle.pop()
            if not waiting.done():
                waiting.set_result(None)
                return
        if served.runners < served.slots:
            served.runners += 1
            self._tasks.start_soon(self._run_callbacks, served, name=f"worker {served.worker.topic}")

    def _give_up(self, work: HeldWork) -> None:
        """Give work back that has not started: others may have it at once."""
        self._answers.give_back(work)

    def _give_up_queue(self, served: _Served) -> None:
        """Give back what waits here for its callback."""
        while served.queue:
            served.running -= 1
            work = served.queue.popleft()
            self._leases.release(work.key)
            self._give_up(work)

    async def _run_callbacks(self, served: _Served) -> None:
        """Run the callbacks of a topic, one after the other."""
        loop = asyncio.get_running_loop()
        while True:
            if not served.queue:
                waiting: asyncio.Future[None] = loop.create_future()
                served.idle.append(waiting)
                await waiting
                continue
            await self._call(served, served.queue.popleft())

    async def _call(self, served: _Served, work: HeldWork) -> None:
        if served.pace is not None:
            served.pace.started()
            self._open(served, served.pace)
        message = message_from(work, self._store.app_id)
        scope = anyio.CancelScope()
        if served.timeout is not None:
            scope.deadline = anyio.current_time() + served.timeout
        key = id(scope)
        since = time.monotonic()
        self._running[key] = (scope, since, work.topic)
        response: Response | None = None
        with scope:
            try:
                response = read_response(await served.callback(message))
            except Exception as error:  # noqa: BLE001 - the users' code may raise anything
                response = raised(error)
            except BaseException as error:
                # `sys.exit()`, or a cancellation of the callback's own, is its failure and not the end of the mesh.
                if isinstance(error, KeyboardInterrupt | GeneratorExit) or is_cancelled():
                    raise
                response = raised(error)
        held = self._leases.finish(work)
        del self._running[key]
        served.running -= 1
        outcome = "cut off" if response is None else response.status
        self._metrics.callbacks[work.topic].add(outcome, time.monotonic() - since)
        if response is None:
            self._cut_off(served, work)
        elif not held:
            add(self._metrics.lost_leases, work.topic)
            logger.warning(
                "stream-lease-lost", extra={"job_id": work.job_id, "activity_id": work.activity_id}
            )
        else:
            self._answered(served, work, response)
        self._freed(served)

    def _cut_off(self, served: _Served, work: HeldWork) -> None:
        """A callback was cancelled: by `stop`, by its worker's timeout, or because it ran for ever."""
        if self._stopping:
            # Somebody else runs it again, at once.
            self._answers.give_back(work)
        elif served.timeout is not None:
            self._answered(served, work, timed_out(served.worker, served.timeout))
        else:
            self._leases.release(work.key)
            logger.error(
                "stream-lease-expired",
                extra={
                    "job_id": work.job_id,
                    "activity_id": work.activity_id,
                    "seconds": self._settings.longest_callback,
                },
            )

    async def _watch_loop(self) -> None:
        """Cut off callbacks that have run longer than any may; their messages become visible to others."""
        longest = self._settings.longest_callback
        while True:
            await anyio.sleep(min(1.0, longest / 2))
            limit = time.monotonic() - longest
            for scope, since, _ in list(self._running.values()):
                if since < limit:
                    scope.cancel()

    def _freed(self, served: _Served) -> None:
        if served.pace is not None:
            self._open(served, served.pace)
        self._announce_slot(served)

    def _announce_slot(self, served: _Served) -> None:
        if served.overflow and served.running < served.most:
            self._slot_free()
        elif served.backlog and not self._stopping:
            self._wake.set()
        if self._stopping:
            self._idle.set()

    # -- answering ---------------------------------------------------------------------------------------

    def _answered(self, served: _Served, work: HeldWork, response: Response) -> None:
        try:
            data = normalise(
                response.data, limit=self._settings.max_payload, what=f"the result of worker {work.topic}"
            )
        except PayloadError as error:
            response = Response({"message": str(error), "code": 500}, status="error", code=500)
            data = response.data
        status, code = response.status, response.code
        if status == "error":
            data = error_object(response, data)
            code = data["code"]
            delay = retry_delay(served.retry, work, code)
            if delay is not None:
                add(self._metrics.retries, work.topic)
                self._answers.postpone(work, delay)
                return
        served.counts[code] = served.counts.get(code, 0) + 1
        if self._deliver is None or self._by_stream:
            try:
                self._answers.answer(work, status, code, self._store.payload.dumps(data))
            except CodecError as error:
                logger.error("answer cannot be encoded", extra={"job_id": work.job_id, "error": str(error)})
                self._answers.postpone(work, UNREADABLE_RETRY)
            return
        event = Event(
            "answer",
            work.activity_id,
            work.dimension,
            status,
            code,
            data,
            receipt=WorkReceipt(work.activity_id, work.dimension),
            started_at=work.created_at,
            attempt=work.attempt,
        )
        self._deliver(work.job_id, work.generation, event)

    def _bury(self, served: _Served, work: HeldWork) -> None:
        served.running -= 1
        add(self._metrics.dead_letters, "worker")
        message = f"Poison message detected: delivered {work.delivery - 1} times to workers of {work.topic} and never answered"
        logger.error(
            "stream-poison-message-detected",
            extra={"job_id": work.job_id, "activity_id": work.activity_id, "deliveries": work.delivery - 1},
        )
        self._answers.bury(work, message, {"message": message, "code": LOST})


def _held(work: Work, created_at: datetime | None) -> HeldWork:
    """Work of a step as the worker gets it."""
    return HeldWork(
        work.job_id,
        work.generation,
        work.activity_id,
        work.dimension,
        work.topic,
        work.data,
        work.workflow_name,
        retry=work.retry,
        retry_policy=work.retry_policy,
        trace_id=work.trace_id,
        span_id=work.span_id,
        created_at=created_at,
    )


def _nothing() -> None:
    """No engine, nothing overflows."""


def _never() -> bool:
    """No engine, no commits."""
    return False


UNREADABLE_RETRY = 1.0
"""Seconds for which a process leaves alone work that it cannot decode."""


def _unlimited(topic: str) -> int:
    """No rate is known yet."""
    del topic
    return 0


UNHURRIED = 3
"""How many polls of the engine there are to one for work, of which a notification tells: it finds those that got lost."""

MOST_THREADS = 10
"""Plain functions of one worker that run at once unless it says otherwise; each needs a thread."""

BREATH = 0.02
"""Seconds without news after which a process asks when the next work becomes visible."""

OVERFLOW_LIMIT = 1_000
"""Overflowed work remembered per topic; what is beyond is found by claiming."""

OVERFLOW_HINT = 0.05
"""Seconds between two hints about a topic that this process serves, too."""

UNWRITTEN_LIMIT = 400
"""Answers that may wait to be written before more work is claimed."""
