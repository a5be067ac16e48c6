"""Steps that run in this process, in memory: after the commit of the turn that asked for them, until their outcome is committed.

    start ──► waits for a slot ──► an attempt runs ──► it fails, and is tried again ──┐
                     ▲                     │                                          │
                     └─────────────────────┼──────────────────────────────────────────┘
                                           └─► over: reported as an event ──► recorded: its commit is through

A step is known by its job's generation and its position, from its start until it is recorded. So a workflow that is replayed
meanwhile, because a commit was lost or refused, finds it there, and does not start it twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Collection
from contextvars import Context, copy_context
from datetime import UTC, datetime
from typing import Any, Final

from hotmesh.core.durable.failure import failure_of, retry_after, simple_failure
from hotmesh.core.durable.retry import on_timeout
from hotmesh.core.state.job import Event, Job
from hotmesh.durable_errors import TIMEOUT_CODE, told
from hotmesh.interrupts import is_interrupt
from hotmesh.runtime.apart import UNSET, Apart, log_left
from hotmesh.runtime.durable.hosted import StepCall, StepInfo
from hotmesh.runtime.threads import Threads
from hotmesh.runtime.tracebacks import loggable

logger = logging.getLogger("hotmesh.durable")

Deliver = Callable[[str, str, Event], None]
Key = tuple[str, int]
"""The generation of the job, and the position of the step in it."""

MOST_THREADS: Final = 100


class LocalStep:
    """One step, through all its attempts."""

    __slots__ = (
        "attempt",
        "call",
        "cancelled",
        "copy",
        "event",
        "info",
        "limit",
        "retry",
        "running",
        "since",
        "started_at",
        "steps",
        "timed_out",
    )

    def __init__(self, steps: LocalSteps, info: StepInfo, call: StepCall) -> None:
        self.steps = steps
        self.info = info
        self.call = call
        self.attempt = 0
        self.since = time.monotonic()
        self.started_at = datetime.now(UTC)
        self.running: _Attempt | None = None
        self.retry: asyncio.TimerHandle | None = None
        self.cancelled = False
        self.timed_out = False
        self.limit: _Limit | None = None
        """In which its attempt counts."""
        self.event: Event | None = None
        """Its outcome, once it is reported."""
        self.copy: Any = UNSET

    @property
    def key(self) -> Key:
        return self.info.generation, self.info.position


class _Limit:
    """How many steps of one queue may run, and do; and what waits."""

    __slots__ = ("most", "running", "waiting")

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.waiting: deque[LocalStep] = deque()


class _Attempt(Apart):
    """One attempt that runs."""

    __slots__ = ("step", "timer")

    def __init__(self, step: LocalStep, cleaning_up: float) -> None:
        super().__init__(cleaning_up)
        self.step = step
        self.timer: asyncio.TimerHandle | None = None

    def time_out(self) -> None:
        self.step.timed_out = True
        self.cut_off()

    def on_end(self) -> None:
        self.step.steps.ended(self)

    def on_left(self) -> None:
        log_left(f"step {self.step.info.name}", self, job_id=self.step.info.job_id)
        self.step.steps.ended(self)


class LocalSteps:
    """The steps of one process. `most` may run at once; `deliver` takes what becomes of them."""

    def __init__(self, deliver: Deliver, most: int, cleaning_up: float) -> None:
        self._deliver = deliver
        self.most = most
        self._cleaning_up = cleaning_up
        self._threads = Threads(MOST_THREADS, "steps")
        self._steps: dict[Key, LocalStep] = {}
        self._of: dict[str, set[int]] = {}
        """Generation → positions of its steps here."""
        self._waiting: deque[LocalStep] = deque()
        self._limits: dict[str, _Limit] = {}
        """Of queues that have one."""
        self._running = 0
        self._context: Context | None = None
        self._closed = False
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def running(self) -> int:
        """Attempts that run."""
        return self._running

    @property
    def generations(self) -> list[str]:
        """The jobs of which a step is here."""
        return list(self._of)

    def runs(self, generation: str, but: Collection[int] = ()) -> bool:
        """Whether a step of the job is here, but for those at these positions."""
        return any(position not in but for position in self._of.get(generation, ()))

    def limit(self, queue: str, most: int) -> None:
        """No more than so many steps of the workflows of a queue run at once; several who say so add up.

        Below 0: one of them does so no more.
        """
        found = self._limits.setdefault(queue, _Limit(0))
        found.most += most
        if found.most <= 0:
            del self._limits[queue]
            self._waiting.extend(found.waiting)
            self._begin_waiting()

    def of(self, queue: str, names: Collection[str]) -> dict[str, str]:
        """The jobs of these functions of which a step is here: their ids, by generation."""
        return {
            step.info.generation: step.info.job_id
            for step in self._steps.values()
            if step.info.queue == queue and step.info.workflow_name in names
        }

    def start(self, job: Job, position: int, name: str, call: StepCall) -> None:
        """Run a step whose turn is committed; one that is here already goes on."""
        key = (job.generation, position)
        known = self._steps.get(key)
        if self._closed or (known is not None and not known.cancelled):
            return
        info = StepInfo(job.job_id, job.generation, job.queue or "", job.topic, name, position, 1)
        step = self._steps[key] = LocalStep(self, info, call)
        self._of.setdefault(job.generation, set()).add(position)
        self.idle.clear()
        self._attempt(step)

    def copy_of(self, generation: str, position: int) -> Any:
        """The value that a step has returned, read back, for the workflow; once. UNSET: it is not here (any more)."""
        step = self._steps.get((generation, position))
        if step is None:
            return UNSET
        copy, step.copy = step.copy, UNSET
        return copy

    def recorded(self, generation: str, position: int) -> None:
        """The outcome of a step is committed."""
        step = self._steps.pop((generation, position), None)
        if step is not None:
            self._forgotten(generation, position)
            if step.event is None:
                self._cancel(step)

    def cancel(self, generation: str, position: int) -> None:
        """The workflow has given a step up."""
        self.recorded(generation, position)

    def drop(self, generation: str) -> None:
        """Nothing that the steps of a job come to counts any more."""
        for position in tuple(self._of.get(generation, ())):
            self.recorded(generation, position)

    def close(self) -> None:
        """Run nothing more, and let go of what runs."""
        self._closed = True
        for step in list(self._steps.values()):
            self._cancel(step)
        self._steps.clear()
        self._of.clear()
        self.idle.set()
        self._threads.close()

    # -- attempts ------------------------------------------------------------------------------------------

    def _attempt(self, step: LocalStep) -> None:
        step.retry = None
        if step.cancelled:
            return
        limit = self._limits.get(step.info.queue) if self._limits else None
        if limit is not None and limit.running >= limit.most:
            limit.waiting.append(step)
            return
        if self._running >= self.most:
            self._waiting.append(step)
            return
        if limit is not None:
            step.limit = limit
            limit.running += 1
        if self._context is None:
            self._context = copy_context()
        self._running += 1
        step.attempt += 1
        step.timed_out = False
        info = step.info
        if step.attempt > 1:
            info = StepInfo(
                info.job_id, info.generation, info.queue, info.workflow_name, info.name, info.position, step.attempt
            )  # fmt: skip
        step.running = attempt = _Attempt(step, self._cleaning_up)
        timeout = self._left(step)
        if timeout is not None:
            attempt.timer = asyncio.get_running_loop().call_later(timeout, attempt.time_out)
        attempt.start(f"step {info.name}", self._context, step.call.run, info, self._threads)

    def _left(self, step: LocalStep) -> float | None:
        """Seconds for the next attempt."""
        call = step.call
        if call.limit is None:
            return call.timeout
        left = max(step.since + call.limit - time.monotonic(), 0.0)
        return left if call.timeout is None else min(left, call.timeout)

    def ended(self, attempt: _Attempt) -> None:
        """An attempt is over, or left to itself."""
        step = attempt.step
        if attempt.timer is not None:
            attempt.timer.cancel()
        if step.running is not attempt:
            return  # it was left before
        step.running = None
        self._running -= 1
        if step.limit is not None:
            step.limit.running -= 1
            step.limit = None
        try:
            if not step.cancelled and not self._closed:
                self._settle(step, attempt)
        except Exception as error:
            logger.error(
                "the outcome of a step could not be told",
                extra={"job_id": step.info.job_id, "step": step.info.name},
                exc_info=error,
            )
        finally:
            attempt.error = None
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        """As many as there is room for."""
        for one in self._limits.values():
            while one.waiting and one.running < one.most and self._running < self.most:
                self._attempt(one.waiting.popleft())
        while self._waiting and self._running < self.most:
            self._attempt(self._waiting.popleft())

    def _settle(self, step: LocalStep, attempt: _Attempt) -> None:
        if attempt.value is not UNSET and not step.timed_out:
            value, step.copy = attempt.value
            self._report(step, "success", 200, value)
            return
        error = attempt.error
        if step.timed_out:
            seconds = step.call.timeout if step.call.timeout is not None else step.call.limit
            stored = simple_failure(
                f"step {step.info.name} took longer than {seconds:g} s",
                type="DurableTimeoutError",
                code=TIMEOUT_CODE,
            )
        elif error is None or is_interrupt(error):
            return  # the program ends: others will run it
        else:
            stored = failure_of(error)
        policy = on_timeout(step.call.policy) if step.timed_out else step.call.policy
        found = retry_after(stored, policy, step.attempt, random.random())  # noqa: S311 - no secret
        overdue = (
            step.call.limit is not None
            and isinstance(found, float)
            and time.monotonic() + found >= step.since + step.call.limit
        )
        if isinstance(found, float) and not overdue:
            logger.warning(
                "step %s of workflow %s failed, attempt %s, next in %s s: %s",
                step.info.name,
                step.info.job_id,
                step.attempt,
                f"{round(found, 2):g}",
                told(stored),
                extra={"job_id": step.info.job_id, "step": step.info.name, "attempt": step.attempt},
                exc_info=None if error is None else loggable(error),
            )
            step.retry = asyncio.get_running_loop().call_later(found, self._attempt, step)
            return
        state = "timeout" if overdue else found
        logger.error(
            "step %s of workflow %s failed, attempt %s, the last: %s",
            step.info.name,
            step.info.job_id,
            step.attempt,
            told(stored),
            extra={"job_id": step.info.job_id, "step": step.info.name, "attempt": step.attempt},
            exc_info=None if error is None else loggable(error),
        )
        self._report(step, "error", int(stored["code"]), stored | {"ended": state})

    def _report(self, step: LocalStep, status: str, code: int, data: Any) -> None:
        info = step.info
        step.event = Event(
            "step", info.name, (0, info.position), status, code, data, started_at=step.started_at, attempt=step.attempt
        )  # fmt: skip
        self._deliver(info.job_id, info.generation, step.event)

    def _cancel(self, step: LocalStep) -> None:
        step.cancelled = True
        if step.retry is not None:
            step.retry.cancel()
        if step.running is not None:
            step.running.cut_off()

    def _forgotten(self, generation: str, position: int) -> None:
        positions = self._of.get(generation)
        if positions is not None:
            positions.discard(position)
            if not positions:
                del self._of[generation]
        if not self._of:
            self.idle.set()
