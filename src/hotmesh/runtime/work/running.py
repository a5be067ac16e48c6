"""Runs callbacks: work that has a slot is handed to its callback, in a task and a context of its own, and leaves an outcome.

Work that cannot start any more is given back. A callback is cut off by the timeout of its worker, by `stop`, or because it has
run longer than any may: it is cancelled once, and has `cleaning_up` seconds to end by itself. What it returns until then counts;
what it raises does not, since it was told to end. One that does not end is *left*: its outcome is decided without it.

A slot is free when its callback is over, and not before: one that was left, or goes on in its thread, keeps the slot, so that
there are never more of them than `max_concurrency`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context, copy_context
from typing import Any, Literal

import anyio
from anyio.abc import TaskGroup

from hotmesh.interrupts import is_interrupt
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.apart import UNSET, Apart, log_left
from hotmesh.runtime.messages import Decided, Response
from hotmesh.runtime.settings import Settings
from hotmesh.runtime.telemetry.metrics import Metrics
from hotmesh.runtime.work.answer_writer import AnswerWriter, note_lost
from hotmesh.runtime.work.answers import Answers
from hotmesh.runtime.work.lease import LeaseKeeper
from hotmesh.runtime.work.outcome import message_from, raised, timed_out
from hotmesh.runtime.work.served import Served, ServedWorker
from hotmesh.runtime.work.worker import converted

logger = logging.getLogger("hotmesh.worker")

Reason = Literal[
    "timeout",
    "stopping",
    "too long",
    "cancelled",
    "asked",
    "start_to_close",
    "schedule_to_close",
    "heartbeat",
]
"""Why a callback was cut off; the later ones are those of activities."""


class _Run(Apart):
    """One callback that runs, for the work it was given."""

    __slots__ = ("callbacks", "reason", "served", "since", "timer", "work")

    def __init__(
        self, callbacks: Callbacks, served: ServedWorker, work: HeldWork, cleaning_up: float
    ) -> None:
        super().__init__(cleaning_up)
        self.callbacks = callbacks
        self.served = served
        self.work = work
        self.since = time.monotonic()
        self.reason: Reason | None = None
        self.timer: asyncio.TimerHandle | None = None

    def cut_off_for(self, reason: Reason) -> None:
        if self.reason is None:
            self.reason = reason
        if reason != "asked" or not self.served.in_thread:
            self.cut_off()  # else it is only told: its workflow waits for its thread
        if self.served.share is not None:
            self.served.share.judge.cut_off(self.work)

    def on_end(self) -> None:
        self.callbacks.ended(self)

    def on_left(self) -> None:
        self.callbacks.left(self)


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
        self._context: Context | None = None
        """That of the instance, of which each callback gets a copy."""
        self._running: set[_Run] = set()
        """What may be cut off."""

    @property
    def started(self) -> bool:
        """Whether callbacks can run."""
        return self._context is not None

    @property
    def topics(self) -> list[str]:
        """The topic of each callback that runs."""
        return [run.work.topic for run in self._running.copy()]

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def start(self, tasks: TaskGroup) -> None:
        """Run callbacks, until this task group ends."""
        self._context = copy_context()
        tasks.start_soon(self._watch, name="watch callbacks")

    def run(self, served: ServedWorker, work: HeldWork, since: float) -> None:
        """Run the callback for work that is held by this process and has a slot here; what must not start is given back.

        `since`: when the reservation was sent, by `time.monotonic`.
        """
        if self._context is None:
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
        if work.paused and not work.handed_over:
            # Whoever had it has died, or lost it: it is not begun again before its workflow goes on.
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
        if served.running < served.slots:
            self._start(served, work, self._context)
        else:
            served.queue.append(work)

    def give_back_queue(self, served: ServedWorker) -> None:
        """Give back what waits here for its callback."""
        while served.queue:
            served.used -= 1
            work = served.queue.popleft()
            self._leases.release(work.key)
            self._writer.give_back(work)

    def cut_off_all(self, served: ServedWorker | None = None) -> None:
        """The instance stops, or one of its workers."""
        for run in list(self._running):
            if served is None or run.served is served:
                run.cut_off_for("stopping")

    async def until_over(self) -> None:
        """Wait until nothing runs any more that was cut off: it is over, or left."""
        for run in list(self._running):
            await run.wait()

    # -- one callback ------------------------------------------------------------------------------------

    def _start(self, served: ServedWorker, work: HeldWork, context: Context) -> None:
        served.running += 1
        if served.pace is not None:
            served.pace.started()
            self._served.open_next(served, served.pace)
        run = _Run(self, served, work, self._settings.cleaning_up)
        self._running.add(run)
        if served.share is not None:
            served.share.judge.begin(work, run.cut_off_for)
        run.start(served.name, context, self._call, served, work)
        if work.cancelled or work.handed_over:
            over: Any = work.handed_over
            run.reason = "asked" if work.cancelled else over
            run.cut_off()  # before it has begun
        if served.timeout is not None:
            loop = asyncio.get_running_loop()
            run.timer = loop.call_later(served.timeout, run.cut_off_for, "timeout", context=context)

    async def _call(self, served: ServedWorker, work: HeldWork) -> Response | Decided:
        """What the callback returns, as it will be stored: all code of users runs in here."""
        message = message_from(work, self._app_id, bare=served.share is not None)
        result = await served.callback(message)
        if served.threads is not None:
            response: Response = result  # it was converted in its thread
            return response
        return converted(work.topic, message, result, self._settings.max_payload)

    def ended(self, run: _Run) -> None:
        """The task of a callback is over."""
        if run.left:
            self._free(run)
            return
        self._decided(run)

    def left(self, run: _Run) -> None:
        """A callback does not end, although it was cut off."""
        self._decided(run)

    def _decided(self, run: _Run) -> None:
        """Its slot is free if nothing of it goes on, whatever becomes of its outcome."""
        self._running.discard(run)
        over = not run.goes_on
        if over:
            self._release_slot(run)
        try:
            self._finish(run)
        except BaseException as error:
            if is_interrupt(error):
                raise
            # The work is held and unanswered: its lease lapses. This is a fault of ours, and of this callback alone.
            logger.error(
                "the end of a callback could not be handled",
                extra={"job_id": run.work.job_id, "activity_id": run.work.activity_id},
                exc_info=error,
            )
            self._leases.release(run.work.key)
        run.error = None  # its traceback leads back here
        if over:
            self._go_on(run.served)
        else:
            self._keep_slot(run)

    def _finish(self, run: _Run) -> None:
        """The outcome of a callback is decided, and its answer on its way."""
        served, work = run.served, run.work
        if run.timer is not None:
            run.timer.cancel()
        held = self._leases.finish(work)
        response = self._response(run)
        if served.share is not None:
            served.share.judge.end(work)
        outcome = "cut off" if response is None else response.status
        self._metrics.callbacks[work.topic].add(outcome, time.monotonic() - run.since)
        if response is None:
            self._cut_off(run)
        elif not held:
            note_lost(self._metrics, work)
        else:
            self._answers.answer(served, work, response, run.error)

    def _response(self, run: _Run) -> Response | Decided | None:
        """What a callback has returned or raised; None if it was cut off, or the whole program was."""
        if run.value is not UNSET:
            response: Response | Decided = run.value
            return response
        share = run.served.share
        if share is not None:
            error = run.error or asyncio.CancelledError()
            reason = "stopping" if run.interrupted else run.reason
            return share.judge.decide(run.work, reason, error)
        if run.reason is not None or run.interrupted or run.error is None:
            return None
        return raised(run.error)

    def _cut_off(self, run: _Run) -> None:
        """A callback was cancelled: by `stop`, by its worker's timeout, or because it ran for ever."""
        served, work = run.served, run.work
        if self._served.stopping or run.reason == "stopping" or run.interrupted:
            # Somebody else runs it again, at once.
            self._writer.give_back(work)
        elif run.reason == "timeout" and served.timeout is not None:
            response, error = timed_out(served.worker, served.timeout, run.error)
            self._answers.answer(served, work, response, error)
        elif run.reason == "cancelled":
            self._leases.release(work.key)  # its row is gone
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

    # -- slots ---------------------------------------------------------------------------------------------

    def _keep_slot(self, run: _Run) -> None:
        """Something of a callback goes on: it keeps its slot, until it ends after all."""
        work = run.work
        run.served.kept += 1
        self._free_in_time(run)
        what = f"the callback of worker {work.topic} (job {work.job_id})"
        log_left(what, run, job_id=work.job_id, activity_id=work.activity_id)

    def _free_in_time(self, run: _Run) -> None:
        if run.thread is not None and not run.thread.ended and self._context is not None:
            context = self._context.copy()
            run.thread.on_end = lambda: context.run(self._free, run)

    def _free(self, run: _Run) -> None:
        """A callback is over, after its outcome was decided: its slot is free."""
        if run.goes_on:
            self._free_in_time(run)
            return
        run.served.kept -= 1
        self._release_slot(run)
        self._go_on(run.served)

    def _release_slot(self, run: _Run) -> None:
        run.served.running -= 1
        run.served.used -= 1

    def _go_on(self, served: ServedWorker) -> None:
        """There is a slot for another callback."""
        if served.queue and self._context is not None and not self._served.stopping:
            self._start(served, served.queue.popleft(), self._context)
        self._served.freed(served)

    # -- lifetime --------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Cut off callbacks that have run longer than any may; their messages become visible to others.

        When the instance ends, whatever runs ends with it. If that is because all tasks of a program are cancelled, this one hears
        of it before any callback is over, whatever that has waited for: no callback has failed by it.
        """
        longest = self._settings.longest_callback
        try:
            while True:
                await anyio.sleep(min(1.0, longest / 2))
                limit = time.monotonic() - longest
                for run in list(self._running):
                    if run.since < limit:
                        run.cut_off_for("too long")
                    elif run.served.share is not None and run.work.key in self._leases.lost:
                        # The workflow has given it up, or others have it: nothing that it does counts any more.
                        run.cut_off_for("cancelled")
                    elif run.served.share is not None and run.work.key in self._leases.asked:
                        run.cut_off_for("asked")
        finally:
            hurried = self._served.stopping
            self._served.stopping = True
            self.cut_off_all()
            if hurried:
                # `stop` was waiting for them, and is cut short itself, as by a second Ctrl-C: there is no more time.
                for run in list(self._running):
                    run.leave()
            with anyio.CancelScope(shield=True):
                await self.until_over()
