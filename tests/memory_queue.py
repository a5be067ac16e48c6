"""The work of one app in memory: what workers ask of a database, for tests of their parts one by one.

Statements fail with the errors of `failing`, one after the other, and are noted in `asked`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio

from hotmesh.core.codec import CLEAR, Payload
from hotmesh.core.state.job import Event
from hotmesh.core.state.step import Work, WorkKey
from hotmesh.postgres.rows import HeldWork, Next
from hotmesh.postgres.work import Wanted
from hotmesh.runtime.frontier import FrontierLimits
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry.metrics import Metrics
from hotmesh.runtime.threads import Threads
from hotmesh.runtime.wake import Wake
from hotmesh.runtime.work.alone import TrialLimits, Trials
from hotmesh.runtime.work.answer_writer import AnswerWriter
from hotmesh.runtime.work.answers import Answers
from hotmesh.runtime.work.claiming import Claims
from hotmesh.runtime.work.company import Company
from hotmesh.runtime.work.lease import LeaseKeeper
from hotmesh.runtime.work.lost_reservations import LostReservations
from hotmesh.runtime.work.running import Callbacks
from hotmesh.runtime.work.served import Served, ServedWorker
from hotmesh.runtime.work.slots import Slots
from hotmesh.runtime.work.worker import Callback, Worker, as_coroutine, is_asynchronous, retry_policy


@dataclass
class MemoryQueue:
    """Stands for the work queue, and for the database where it is. `rows` are visible and for everybody."""

    rows: list[HeldWork] = field(default_factory=list)
    due: float | None = None
    """When the next is visible."""
    failing: list[Exception] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answered: list[tuple[str, str, int, str | None]] = field(default_factory=list)
    """Job, status, code, data."""
    told: list[tuple[str, str]] = field(default_factory=list)
    """Channel and text of notifications."""
    postponed: list[tuple[str, float, bool]] = field(default_factory=list)
    """Job, delay, whether it is a failure."""
    buried: list[str] = field(default_factory=list)
    given_back: list[Any] = field(default_factory=list)
    """The reservations that were asked after."""
    beside: list[tuple[str, bool]] = field(default_factory=list)
    """Job, and whether others are beside it, as it was noted."""
    found: int = 0
    """How much is given back at the next question."""
    extended: list[list[WorkKey]] = field(default_factory=list)
    lost: set[WorkKey] = field(default_factory=set)
    """What others hold by now."""
    gone: set[WorkKey] = field(default_factory=set)
    """What is not there any more."""
    app_id: str = "app"
    payload: Payload = CLEAR
    keeps_sessions: bool = False
    source: Any = None

    @property
    def database(self) -> MemoryQueue:
        return self

    def link(self, name: str) -> MemoryQueue:
        del name
        return self

    def apart(self) -> MemoryQueue:
        return self

    @asynccontextmanager
    async def use(self) -> AsyncIterator[None]:
        yield None

    async def close(self) -> None:
        """Nothing to close."""

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.failing:
            raise self.failing.pop(0)

    def _take(self, wanted: Wanted) -> list[HeldWork]:
        name = wanted.workflow_name
        found = [
            row
            for row in self.rows
            if row.topic == wanted.topic
            and (row.workflow_name == name if name is not None else row.workflow_name not in wanted.others)
        ][: wanted.limit]
        self.rows = [row for row in self.rows if row not in found]
        return found

    def last_delivery(self, threshold: int) -> int:
        return max(threshold, 2)

    async def set_beside(self, connection: None, member: str, work: HeldWork, beside: bool) -> bool:
        self._ask("beside")
        self.beside.append((work.job_id, beside))
        return work.key not in self.lost

    async def claim(
        self,
        connection: None,
        member: str,
        wanted: Sequence[Wanted],
        lease: float,
        reservation: int,
        last: int | None = None,
    ) -> list[HeldWork]:
        self._ask("claim")
        return [row for one in wanted for row in self._take(one)]

    async def next_at(self, connection: None, wanted: Sequence[Wanted], within: float | None = None) -> Next:
        self._ask("next")
        return Next(self.due, datetime.now(UTC))

    async def answer(
        self, connection: None, member: str, answers: Sequence[tuple[Any, ...]], wake: str
    ) -> list[bool]:
        self._ask("answer")
        for generation, _, _, status, code, data in answers:
            self.answered.append((generation, status, code, data))
        return [
            (generation, activity, dimension) not in self.lost
            for generation, activity, dimension, *_ in answers
        ]

    def notice(
        self, member: str, work: HeldWork, status: str, code: int, data: str | None
    ) -> tuple[str, str] | None:
        return None if work.reply_channel is None else (work.reply_channel, work.job_id)

    async def tell(self, connection: None, notices: Sequence[tuple[str, str]]) -> None:
        self._ask("tell")
        self.told += notices

    async def still_held(self, connection: None, member: str, works: Sequence[HeldWork]) -> list[bool | None]:
        self._ask("still held")
        return [None if work.key in self.gone else work.key not in self.lost for work in works]

    async def postpone(
        self, connection: None, member: str, postponed: Sequence[tuple[Any, ...]], wake: str | None
    ) -> int:
        self._ask("postpone")
        self.postponed += [(generation, delay, failure) for generation, _, _, delay, failure, *_ in postponed]
        return len(postponed)

    async def bury(
        self, connection: None, member: str, work: HeldWork, reason: str, error: dict[str, Any], wake: str
    ) -> str | None:
        self._ask("bury")
        self.buried.append(work.generation)
        return "dead letter 1"

    async def give_back(
        self,
        connection: None,
        member: str,
        topics: Collection[str],
        reservations: Collection[int] | None = None,
    ) -> int:
        self.given_back.append(None if reservations is None else list(reservations))
        self._ask("give back")
        found, self.found = self.found, 0
        return found

    async def extend(
        self, connection: Any, member: str, held: Sequence[WorkKey], lease: float, details: Any = None
    ) -> list[bool]:
        self._ask("extend")
        self.extended.append(list(held))
        return [key not in self.lost for key in held]


def row(number: int = 1, topic: str = "w", name: str = "", **more: Any) -> HeldWork:
    """Work as it is claimed; its job and generation are named for the number."""
    return HeldWork(f"job-{number}", str(number), "call", (0, 0), topic, {"x": number}, name, **more)


def work(number: int = 1, topic: str = "w", name: str = "") -> Work:
    """Work as a step has it."""
    return Work(f"job-{number}", str(number), "call", (0, 0), topic, {"x": number}, name)


class Room:
    """The parts of a process's workers, put together around a queue in memory. Nothing runs by itself."""

    def __init__(
        self,
        *workers: Worker,
        member: str = "member",
        trial_limits: TrialLimits | None = None,
        company: Company | None = None,
        **settings: Any,
    ) -> None:
        self.queue = MemoryQueue()
        self.queue.source = self.queue
        self.settings = Settings(**settings)
        self.metrics = Metrics()
        self.served = Served(Wake(60))
        queue: Any = self.queue
        self.leases = LeaseKeeper(queue, member, self.settings.lease)
        self.announced: list[None] = []
        """One for each time that found work was announced."""
        self.lost_reservations = LostReservations(
            queue,
            member,
            self.settings.lease,
            lambda: self.served.topics,
            lambda: self.announced.append(None),
        )
        self.writer = AnswerWriter(queue, member, self.settings, self.metrics, self.leases, self.served)
        self.answers = Answers(queue, self.settings, self.metrics, self.writer)
        self.callbacks = Callbacks(
            "app", self.settings, self.metrics, self.served, self.leases, self.answers, self.writer
        )
        self.company = company or Company()
        self.trials = Trials(
            queue,
            member,
            self.settings,
            self.served,
            self.leases,
            self.callbacks,
            self.answers,
            self.writer,
            trial_limits or TrialLimits(),
            self.company,
        )
        self.claims = Claims(
            queue,
            member,
            self.settings,
            self.served,
            self._run,
            self.writer,
            self.lost_reservations,
            self.trials.last,
            FrontierLimits(),
        )
        self.slots = Slots(self.served, self.callbacks.run, self.answers, self.leases, self.lost_reservations)
        self.claimed: list[str] = []
        """The jobs whose work was claimed; it keeps its slots, and does not run."""
        for worker in workers:
            self.served.add(served_worker(worker))

    def _run(self, served: ServedWorker, work: HeldWork, since: float) -> None:
        self.claimed.append(work.job_id)

    def worker(self, topic: str = "w", name: str | None = None) -> ServedWorker:
        return self.served.workers[topic, name]


async def nothing(message: object) -> None:
    """A callback that returns at once."""


def served_worker(worker: Worker) -> ServedWorker:
    slots = worker.max_concurrency or 1
    timeout = None if worker.timeout is None else float(worker.timeout)  # type: ignore[arg-type]
    threads = None if is_asynchronous(worker.callback) else Threads(slots, "worker")
    callback = as_coroutine(worker, threads, 1_000_000)
    return ServedWorker(worker, callback, retry_policy(worker.retry), timeout, slots, slots, threads=threads)


def a_worker(slots: int = 2, *, callback: Callback = nothing, topic: str = "w", **more: Any) -> Worker:
    return Worker(topic, callback, max_concurrency=slots, **more)


class Workshop(Room):
    """A room whose answers go to an engine, which notes them."""

    def __init__(self, callback: Callback, slots: int = 2, **more: Any) -> None:
        settings = more.pop("settings", {})
        settings |= {name: more.pop(name) for name in ("trial_limits", "company") if name in more}
        super().__init__(a_worker(slots, callback=callback, **more), **settings)
        self.events: list[Event] = []
        self.answers.deliver = lambda job_id, generation, event: self.events.append(event)

    def take(self, *works: HeldWork, since: float | None = None) -> None:
        for work in works:
            self.worker().used += 1
            self.trials.run_claimed(self.worker(), work, time.monotonic() if since is None else since)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            self.callbacks.start(tasks)
            self.trials.run(tasks)
            tasks.start_soon(self.writer.run)
            yield
            tasks.cancel_scope.cancel()

    async def idle(self) -> None:
        with anyio.fail_after(5):
            while self.callbacks.busy or self.writer.busy or self.worker().queue or self.trials.busy:  # noqa: ASYNC110
                await anyio.sleep(0.002)
