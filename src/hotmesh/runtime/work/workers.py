"""All workers of one process: their parts put together, and what the instance and the other members ask.

A worker holds a message from its reservation to its answer. The lease is renewed by a thread of its own, so that a
callback which blocks the event loop keeps it. An answer counts only while the message is still held.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from hotmesh.core.duration import seconds
from hotmesh.core.values import Json
from hotmesh.errors import CodecError
from hotmesh.postgres.rows import HeldWork
from hotmesh.postgres.work import WorkQueue
from hotmesh.runtime.frontier import FrontierLimits
from hotmesh.runtime.pace import Pace
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry.metrics import Metrics
from hotmesh.runtime.telemetry.tracing import Telemetry
from hotmesh.runtime.threads import Threads
from hotmesh.runtime.wake import EVERY_TOPIC, Wake
from hotmesh.runtime.work.alone import TrialLimits, Trials
from hotmesh.runtime.work.answer_writer import AnswerWriter
from hotmesh.runtime.work.answers import Answers, Deliver
from hotmesh.runtime.work.claiming import Claims
from hotmesh.runtime.work.lease import LeaseKeeper
from hotmesh.runtime.work.lost_reservations import LostReservations
from hotmesh.runtime.work.running import Callbacks
from hotmesh.runtime.work.served import ActivityWorker, Served, ServedWorker
from hotmesh.runtime.work.slots import Slots
from hotmesh.runtime.work.worker import Worker, as_coroutine, is_asynchronous, retry_policy

logger = logging.getLogger("hotmesh.worker")


@dataclass(frozen=True, slots=True)
class WorkerMetrics:
    """What there is to know about a worker: its answers by code, failed claims in a row, its rate, slots not free."""

    worker: Worker
    counts: dict[int, int]
    error_count: int
    rate: int
    used: int


class Workers:
    """All workers of one app in one process. `run` starts them, `drain` and `close` end them; `slots` is for the engine."""

    def __init__(
        self,
        work: WorkQueue,
        member: str,
        settings: Settings,
        leases: LeaseKeeper,
        metrics: Metrics,
        telemetry: Telemetry | None = None,
        trial_limits: TrialLimits | None = None,
        frontier_limits: FrontierLimits | None = None,
    ) -> None:
        self._payload = work.database.payload
        self._leases = leases
        self._settings = settings
        self._telemetry = telemetry
        self._rate_of: Callable[[str], int] = _unlimited
        self._served = Served(Wake(settings.poll * (UNHURRIED if work.database.keeps_sessions else 1)))
        self._lost_reservations = LostReservations(
            work, member, settings.lease, lambda: self.topics, self.wake_all
        )
        self._writer = AnswerWriter(work, member, settings, metrics, leases, self._served)
        self._answers = Answers(work.database, settings, metrics, self._writer)
        self._callbacks = Callbacks(
            work.database.app_id, settings, metrics, self._served, leases, self._answers, self._writer
        )
        self._trials = Trials(
            work,
            member,
            settings,
            self._served,
            leases,
            self._callbacks,
            self._answers,
            self._writer,
            trial_limits or TrialLimits(),
        )
        self._claims = Claims(
            work,
            member,
            settings,
            self._served,
            self._trials.run_claimed,
            self._writer,
            self._lost_reservations,
            self._trials.last,
            frontier_limits or FrontierLimits(),
        )
        self.slots = Slots(self._served, self._callbacks.run, self._answers, leases, self._lost_reservations)

    def add(self, worker: Worker) -> None:
        """Serve a topic, or one workflow name of it. Raises ConfigError if this instance serves it already."""
        if worker.readonly:
            return
        self._served.check(worker, started=self._callbacks.started)
        served = self._prepared(worker)
        self._served.add(served)
        self._set_rate(served, self._rate_of(worker.topic))
        self._served.wake.set()

    def _prepared(self, worker: Worker) -> ServedWorker:
        most = self._settings.max_concurrency
        plain = not is_asynchronous(worker.callback)
        if plain:
            most = min(most, MOST_THREADS)
        most = worker.max_concurrency or most
        threads = Threads(most, f"worker {worker.topic}") if plain else None
        callback = as_coroutine(worker, threads, self._settings.max_payload)
        if self._telemetry is not None:
            callback = self._telemetry.traced(callback)
        timeout = None if worker.timeout is None else seconds(worker.timeout, name="timeout")
        share = worker.share if isinstance(worker, ActivityWorker) else None
        served = ServedWorker(
            worker, callback, retry_policy(worker.retry), timeout, most, most, share=share, threads=threads
        )
        if isinstance(worker, ActivityWorker) and share is not None:
            share.members.append(served)
            served.in_thread = worker.in_thread
        return served

    def deliver_to(
        self, deliver: Deliver | None, slot_free: Callable[[], None], behind: Callable[[], bool]
    ) -> None:
        """Where answers go: the engine of this process; None: to the engine stream.

        `slot_free` is called when there is a slot for work that overflowed. `behind`: whether many answers still
        wait for their commits.
        """
        self._answers.deliver = deliver
        self._served.slot_free = slot_free
        self._claims.behind = behind

    # -- what there is -----------------------------------------------------------------------------------

    @property
    def topics(self) -> list[str]:
        return self._served.topics

    def serves(self, topic: str, workflow_name: str) -> bool:
        """Whether work of this topic and name would be taken here."""
        return self._served.find(topic, workflow_name) is not None

    def figures(self) -> list[WorkerMetrics]:
        """What there is to know about each worker."""
        return [
            WorkerMetrics(
                served.worker,
                dict(served.counts),
                self._claims.failures,
                0 if served.pace is None else served.pace.rate,
                served.used,
            )
            for served in self._served.workers.values()
        ]

    def running_topics(self) -> list[str]:
        """The topic of each callback that runs."""
        return self._callbacks.topics

    def note_heartbeat(self, work: HeldWork, details: Json, within: float) -> None:
        """Keep what a heartbeat of held work has said for the next attempt. What cannot be encoded is not kept."""
        try:
            text = self._payload.dumps(details)
        except CodecError as error:
            logger.error(
                "details of a heartbeat cannot be encoded", extra={"job_id": work.job_id, "error": str(error)}
            )
        else:
            self._leases.note(work, text, within)

    # -- what is heard -----------------------------------------------------------------------------------

    def hint(self, topics: Collection[str]) -> None:
        """There may be work on these topics, for one of all who serve them."""
        if self._served.expect(topics):
            self._served.wake.hint()

    def crowd(self, members: int) -> None:
        """So many members may hear the same hint."""
        self._served.wake.crowd = members

    def wake_all(self) -> None:
        """There may be work on any topic."""
        if self._served.expect([EVERY_TOPIC]):
            self._served.wake.set()

    def apply_rates(self, rate_of: Callable[[str], int]) -> None:
        """The rates have changed: `rate_of` says that of a topic."""
        self._rate_of = rate_of
        for served in self._served.workers.values():
            self._set_rate(served, rate_of(served.worker.topic))

    def _set_rate(self, served: ServedWorker, rate: int) -> None:
        pace = served.pace
        if rate == 0:
            if pace is not None:
                pace.silence()
                served.pace = None
                served.most = served.slots
                served.backlog = True
                self._served.freed(served)
            return
        if pace is None:
            served.pace = pace = Pace()
            self._callbacks.give_back_queue(served)
        if pace.rate != rate:
            pace.change(rate)
        self._served.open_next(served, pace)

    async def retire(self, topic: str, names: Collection[str], grace: float) -> None:
        """Serve these names of a topic no more: take nothing, let what runs finish, give back the rest."""
        found = [self._served.workers.get((topic, name)) for name in names]
        retired = [served for served in found if served is not None]
        for served in retired:
            served.retired = True
            served.overflow.clear()  # its rows are for everybody
            self._callbacks.give_back_queue(served)
        with anyio.move_on_after(grace):
            await self._until_free(retired)
        for served in retired:
            self._callbacks.cut_off_all(served)
        with anyio.move_on_after(self._settings.cleaning_up + RETIRING):
            await self._until_free(retired)
        for served in retired:
            if served.used <= served.kept:
                self._served.remove(served)
        # Others hear of what is there.
        self._served.wake.set()

    async def _until_free(self, retired: Collection[ServedWorker]) -> None:
        while any(served.used > served.kept for served in retired):  # noqa: ASYNC110 - it may end in many ways
            await anyio.sleep(LOOK)

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Start the loops in the instance's task group."""
        self._callbacks.start(tasks)
        self._trials.run(tasks)
        tasks.start_soon(self._claims.run, name="claim work")
        tasks.start_soon(self._writer.run, name="answer work")
        tasks.start_soon(self._lost_reservations.run, name="look for lost reservations")

    async def drain(self, grace: float) -> None:
        """Claim nothing more, give back what has not started, and wait for running callbacks."""
        self._served.stopping = True
        self._served.wake.set()
        self._writer.hasten()
        for served in self._served.workers.values():
            self._callbacks.give_back_queue(served)
        self._trials.give_back()
        with anyio.move_on_after(grace):
            await self._until_idle()
        self._callbacks.cut_off_all()
        # They may clean up; what does not end by itself is left after `cleaning_up`.
        await self._callbacks.until_over()
        with anyio.move_on_after(1.0):
            await self._until_idle()

    async def _until_idle(self) -> None:
        while self._callbacks.busy or self._writer.busy or self._claims.busy:
            self._served.ended.clear()
            await self._served.ended.wait()

    async def give_back_held(self) -> None:
        """Give back whatever this instance still holds: of callbacks that do not end, of claims that were not answered."""
        await self._claims.give_back_held()

    async def close(self) -> None:
        for served in self._served.workers.values():
            if served.pace is not None:
                served.pace.silence()
            if served.threads is not None:
                served.threads.close()
        await self._claims.close()
        await self._trials.close()
        await self._lost_reservations.close()
        await self._writer.close()


def _unlimited(topic: str) -> int:
    """No rate is known yet."""
    del topic
    return 0


LOOK = 0.01
"""Seconds between two looks whether a worker that stops has ended."""

RETIRING = 2.0
"""Seconds after which nobody waits for it any more."""

UNHURRIED = 3
"""How many polls of the engine there are to one for work, of which a notification tells: it finds those that got lost."""

MOST_THREADS = 10
"""Plain functions of one worker that run at once unless it says otherwise; each needs a thread."""
