"""Runs callbacks: work that has a slot waits for a runner, is handed to its callback, and leaves an outcome.

Each worker has as many runners as it ever needed at once, at most one for each slot. Work that cannot start any more is
given back. A callback is cut off by the timeout of its worker, by `stop`, or because it has run longer than any may.
"""

from __future__ import annotations

import asyncio
import logging
import time

import anyio
from anyio.abc import TaskGroup

from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.messages import Response, StreamData, read_response
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry.metrics import Metrics, add
from hotmesh.runtime.work.answer_writer import AnswerWriter
from hotmesh.runtime.work.answers import Answers
from hotmesh.runtime.work.lease import LeaseKeeper
from hotmesh.runtime.work.outcome import is_cancelled, message_from, raised, timed_out
from hotmesh.runtime.work.served import Served, ServedWorker

logger = logging.getLogger("hotmesh.worker")


class Callbacks:
    """The callbacks of one process that run, and what waits for its turn."""

    def __init__(
        self,
        app_id: str,
        settings: Settings,
        metrics: Metrics,
        served: Served,
        leases: LeaseKeeper,
        answers: Answers,
        writer: AnswerWriter,
    ) -> None:
        self._app_id = app_id
        self._settings = settings
        self._metrics = metrics
        self._served = served
        self._leases = leases
        self._answers = answers
        self._writer = writer
        self._tasks: TaskGroup | None = None
        self._running: dict[int, tuple[anyio.CancelScope, float, str]] = {}
        """What may be cut off: its scope, when it started by `time.monotonic`, its topic."""

    @property
    def started(self) -> bool:
        """Whether there is a task group, so that callbacks can run."""
        return self._tasks is not None

    @property
    def topics(self) -> list[str]:
        """The topic of each callback that runs."""
        return [topic for _, _, topic in self._running.copy().values()]

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def start(self, tasks: TaskGroup) -> None:
        """Run callbacks in this task group."""
        self._tasks = tasks
        tasks.start_soon(self._watch, name="watch callbacks")

    def run_claimed(self, served: ServedWorker, work: HeldWork, since: float) -> None:
        """Run the callback for claimed work, unless it was delivered too often already."""
        if work.delivery > self._settings.poison_threshold and not self._leases.is_answered(work):
            served.used -= 1
            self._answers.bury(work)
        else:
            self.run(served, work, since)

    def run(self, served: ServedWorker, work: HeldWork, since: float) -> None:
        """Run the callback for work that is held by this process and has a slot here; what must not start is given back.

        `since`: when the reservation was sent, by `time.monotonic`.
        """
        if self._tasks is None:
            raise AssertionError("workers run only inside an instance")
        if self._leases.is_answered(work):
            # Its lease had lapsed before the answer could be written; now there is time for that again.
            self._leases.hold(work, since)
            served.used -= 1
            return
        if self._served.stopping or time.monotonic() - since >= self._settings.lease:
            # The instance was stopped while the reservation was on its way, or it has lapsed by now (the commit waited
            # for a lock, or this process stood still): others may have it at once, if they have not yet.
            served.used -= 1
            self._writer.give_back(work)
            return
        if served.pace is not None:
            if not served.pace.admit():
                # Reserved before the rate was set, or before it was lowered.
                served.used -= 1
                self._writer.give_back(work)
                self._served.open_next(served, served.pace)
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

    def give_back_queue(self, served: ServedWorker) -> None:
        """Give back what waits here for its callback."""
        while served.queue:
            served.used -= 1
            work = served.queue.popleft()
            self._leases.release(work.key)
            self._writer.give_back(work)

    def cut_off_all(self) -> None:
        for scope, _, _ in list(self._running.values()):
            scope.cancel()

    # -- one callback ------------------------------------------------------------------------------------

    async def _run_callbacks(self, served: ServedWorker) -> None:
        """Run the callbacks of a worker, one after the other."""
        loop = asyncio.get_running_loop()
        while True:
            if not served.queue:
                waiting: asyncio.Future[None] = loop.create_future()
                served.idle.append(waiting)
                await waiting
                continue
            work = served.queue.popleft()
            if served.pace is not None:
                served.pace.started()
                self._served.open_next(served, served.pace)
            message = message_from(work, self._app_id)
            since = time.monotonic()
            response = await self._call(served, message, since)
            self._finish(served, work, response, time.monotonic() - since)

    async def _call(self, served: ServedWorker, message: StreamData, since: float) -> Response | None:
        """What the callback returns or raises; None if it was cut off."""
        scope = anyio.CancelScope()
        if served.timeout is not None:
            scope.deadline = anyio.current_time() + served.timeout
        key = id(scope)
        self._running[key] = (scope, since, served.worker.topic)
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
        del self._running[key]
        return response

    def _finish(
        self, served: ServedWorker, work: HeldWork, response: Response | None, duration: float
    ) -> None:
        """The callback is done: its slot is free, and its answer on its way."""
        held = self._leases.finish(work)
        served.used -= 1
        outcome = "cut off" if response is None else response.status
        self._metrics.callbacks[work.topic].add(outcome, duration)
        if response is None:
            self._cut_off(served, work)
        elif not held:
            add(self._metrics.lost_leases, work.topic)
            logger.warning(
                "the answer of worker %s for job %s came when others had its work, and does not count (activity %s)",
                work.topic,
                work.job_id,
                work.activity_id,
                extra={"event": "stream-lease-lost", "job_id": work.job_id, "activity_id": work.activity_id},
            )
        else:
            self._answers.answer(served, work, response)
        self._served.freed(served)

    def _cut_off(self, served: ServedWorker, work: HeldWork) -> None:
        """A callback was cancelled: by `stop`, by its worker's timeout, or because it ran for ever."""
        if self._served.stopping:
            # Somebody else runs it again, at once.
            self._writer.give_back(work)
        elif served.timeout is not None:
            self._answers.answer(served, work, timed_out(served.worker, served.timeout))
        else:
            self._leases.release(work.key)
            logger.error(
                "worker %s of job %s ran longer than the %s s that a callback may, and was cut off (activity %s)",
                work.topic,
                work.job_id,
                f"{self._settings.longest_callback:g}",
                work.activity_id,
                extra={
                    "event": "stream-lease-expired",
                    "job_id": work.job_id,
                    "activity_id": work.activity_id,
                    "seconds": self._settings.longest_callback,
                },
            )

    async def _watch(self) -> None:
        """Cut off callbacks that have run longer than any may; their messages become visible to others."""
        longest = self._settings.longest_callback
        while True:
            await anyio.sleep(min(1.0, longest / 2))
            limit = time.monotonic() - longest
            for scope, since, _ in list(self._running.values()):
                if since < limit:
                    scope.cancel()
