"""Activities of queues in this process: the attempts that run for held work, and what becomes of each.

The work itself is claimed, held, run and answered like any other (`runtime.work`). What is particular about an activity stands
here: its limits, which the call says and not the worker; whether a failure is final, by the policy of the call; being
given up while it runs; and what its code may know of itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from hotmesh.core.durable.activities import asked_to_end, policy_of
from hotmesh.core.durable.failure import failure_of, retry_after, simple_failure
from hotmesh.core.durable.retry import on_timeout
from hotmesh.core.state.step import Step, WorkKey
from hotmesh.core.values import Json
from hotmesh.core.wire import normalise
from hotmesh.durable_errors import FATAL_CODE, TIMEOUT_CODE
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.durable.tokens import Token, Tokens
from hotmesh.runtime.messages import Decided, StreamData
from hotmesh.runtime.threads import Threads

logger = logging.getLogger("hotmesh.durable")

CutOff = Callable[[Any], None]
"""Ends the attempt, for a reason."""


Note = Callable[[HeldWork, Json, float], None]
"""Keeps what a heartbeat of held work has said, within so many seconds."""

MOST_DETAILS: Final = 256 * 1024
"""Bytes of JSON that the details of a heartbeat may have."""


class CompletedElsewhere(BaseException):
    """The function gives up its result: somebody who has its token ends the activity. No `except Exception` takes it."""


class ActivityCall(Protocol):
    """A function that this process runs as an activity."""

    @property
    def in_thread(self) -> bool:
        """Whether it is a plain function."""
        ...

    async def run(self, attempt: Attempt, threads: Threads) -> Json:
        """Run it once; what it returned, as it is stored."""
        ...


class Attempt:
    """One attempt of one activity. All but `heartbeat` and `cancelled` belongs to the event loop."""

    __slots__ = (
        "_cancelled",
        "_cut_off",
        "_loop",
        "_note",
        "_pulse",
        "_timer",
        "_tokens",
        "cancelled",
        "deadline",
        "limit",
        "namespace",
        "options",
        "started_at",
        "work",
    )

    def __init__(self, work: HeldWork, namespace: str, cut_off: CutOff, note: Note, tokens: Tokens) -> None:
        data: Any = work.data
        self.work = work
        self.namespace = namespace
        self.options: Mapping[str, Any] = data.get("options") or {}
        self.started_at = datetime.now(UTC)
        self.cancelled = False
        """The workflow has given it up, its time is over, or the process stops."""
        self._note = note
        self._tokens = tokens
        self._cut_off = cut_off
        self._loop = asyncio.get_running_loop()
        self._cancelled: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self.limit = self._limit()
        """Seconds for this attempt, and the option by which they end."""
        self.deadline = None if self.limit is None else self.started_at + timedelta(seconds=self.limit[0])

    @property
    def number(self) -> int:
        """From 1."""
        return self.work.attempt + 1

    @property
    def args(self) -> Any:
        """The stored arguments."""
        data: Any = self.work.data
        return data.get("args")

    @property
    def workflow_name(self) -> str:
        """Of the workflow that asked for it."""
        data: Any = self.work.data
        return str(data.get("workflow", ""))

    @property
    def key(self) -> str:
        """The same for all attempts, and no other call's."""
        return _key(*self.work.key)

    @property
    def scheduled_at(self) -> datetime:
        """When the workflow asked for it."""
        return self.work.created_at or self.started_at

    @property
    def token(self) -> str:
        """By which it is ended from elsewhere."""
        until = self.deadline if self.limit is not None and self.limit[1] == "start_to_close" else None
        return self._tokens.text(
            Token(self.work.key, self.work.attempt, self.options.get("heartbeat"), until)
        )

    @property
    def limit_from_now(self) -> tuple[float, str] | None:
        """What ends it next, and in how many seconds; not what has a timer of its own."""
        found = []
        if self.deadline is not None and self.limit is not None and self.limit[1] == "start_to_close":
            found.append(((self.deadline - datetime.now(UTC)).total_seconds(), "start_to_close"))
        if "heartbeat" in self.options:
            found.append((self.options["heartbeat"], "heartbeat"))
        return min(found, default=None)

    @property
    def left(self) -> float | None:
        """Seconds for this and all further attempts."""
        every: float | None = self.options.get("schedule_to_close")
        if every is None:
            return None
        return max(every - (datetime.now(UTC) - self.scheduled_at).total_seconds(), 0.0)

    def _limit(self) -> tuple[float, str] | None:
        one, every = self.options.get("start_to_close"), self.left
        if every is not None and (one is None or every < one):
            return every, "schedule_to_close"
        return None if one is None else (one, "start_to_close")

    def begin(self) -> None:
        """Its time runs."""
        if self.limit is not None:
            self._timer = self._loop.call_later(self.limit[0], self._end_by, self.limit[1])
        self._beat()

    def end(self) -> None:
        """It is over."""
        for timer in (self._timer, self._pulse):
            if timer is not None:
                timer.cancel()

    def heartbeat(self, details: tuple[Any, ...]) -> None:
        """Its code is alive. From any thread. Raises PayloadError for details that cannot be stored."""
        said = (
            normalise(list(details), limit=MOST_DETAILS, what="details of a heartbeat") if details else None
        )
        try:
            self._loop.call_soon_threadsafe(self._beaten, said)
        except RuntimeError:
            return  # the event loop is closed, and the process ends

    def _beaten(self, details: Json) -> None:
        if details is not None:
            self._note(self.work, details, self.options.get("heartbeat", math.inf) / 2)
        self._beat()

    def _beat(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
        seconds = self.options.get("heartbeat")
        if seconds is not None and not self.cancelled:
            self._pulse = self._loop.call_later(seconds, self._end_by, "heartbeat")

    def _end_by(self, option: str) -> None:
        self.cancel(option)

    def cancel(self, reason: str) -> None:
        """Have it end."""
        self._cut_off(reason)
        self.hears()

    def hears(self) -> None:
        """It has been cut off: its code may look, or waits, for that."""
        self.cancelled = True
        if self._cancelled is not None:
            self._cancelled.set()

    async def wait_cancelled(self) -> None:
        """Wait until it is to end."""
        if self._cancelled is None:
            self._cancelled = asyncio.Event()
            if self.cancelled:
                self._cancelled.set()
        await self._cancelled.wait()


class Activities:
    """The attempts of one process. What `runtime.work` asks of it is `Judge`."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._running: dict[str, Attempt] = {}
        self._threads: list[Threads] = []
        self.note: Note = _nowhere
        """Keeps what heartbeats say."""
        self.tokens = Tokens()

    def callback(self, function: ActivityCall, threads: Threads) -> Callable[[StreamData], Any]:
        """What a worker calls for work of this function."""

        async def run(message: StreamData) -> Decided:
            attempt = self._running[message.idempotency_key]
            try:
                return Decided(await function.run(attempt, threads))
            except CompletedElsewhere:
                return Decided(attempt.limit_from_now, "pending")

        return run

    def threads(self, most: int) -> Threads:
        """Threads for plain functions, closed with this."""
        found = Threads(most, "activities")
        self._threads.append(found)
        return found

    def close(self) -> None:
        for threads in self._threads:
            threads.close()

    def cut_off_elsewhere(self, step: Step) -> list[tuple[WorkKey, bool]]:
        """What a step cuts off that may run in another process."""
        return [(key, asked) for key, asked in cut_off_by(step) if _key(*key) not in self._running]

    def cut_off_all(self, cut_off: Iterable[Sequence[Any]]) -> None:
        """The workflow has given activities up, or (`asked`) waits for their end: generation, name, address, `asked` of each.

        One without a name: all of a workflow that has ended.
        """
        for generation, name, dimension, asked in cut_off:
            if name:
                attempt = self._running.get(_key(generation, name, tuple(dimension)))
                if attempt is not None:
                    attempt.cancel("asked" if asked else "cancelled")
                continue
            for attempt in list(self._running.values()):
                if attempt.work.generation == generation:
                    attempt.cancel("cancelled")

    # -- a judge, for the work -------------------------------------------------------------------------------

    def begin(self, work: HeldWork, cut_off: CutOff) -> None:
        attempt = Attempt(work, self._namespace, cut_off, self.note, self.tokens)
        self._running[_key(*work.key)] = attempt
        attempt.begin()

    def end(self, work: HeldWork) -> None:
        attempt = self._running.pop(_key(*work.key), None)
        if attempt is not None:
            attempt.end()

    def cut_off(self, work: HeldWork) -> None:
        attempt = self._running.get(_key(*work.key))
        if attempt is not None:
            attempt.hears()

    def decide(self, work: HeldWork, reason: str | None, error: BaseException) -> Decided | None:
        """What a failed attempt comes to; None: nothing, its work is not held any more, or somebody else runs it again."""
        attempt = self._running[_key(*work.key)]
        name = work.workflow_name
        if reason in _TOOK_TOO_LONG:
            seconds = attempt.limit[0] if attempt.limit is not None and reason != "heartbeat" else 0.0
            stored = _timed_out(name, attempt, reason, seconds)
        elif reason == "asked":
            return Decided(asked_to_end(name), "error", FATAL_CODE)
        elif reason is not None:
            return None
        else:
            stored = failure_of(error)
        policy = policy_of(attempt.options)
        if reason == "heartbeat":
            policy = on_timeout(policy, True)
        elif reason == "start_to_close":
            policy = on_timeout(policy, attempt.options.get("retry_on_timeout"))
        found = retry_after(stored, policy, attempt.number, random.random())  # noqa: S311 - no secret
        if reason == "schedule_to_close":
            found = "timeout"
        left = attempt.left
        if isinstance(found, float) and left is not None and found >= left:
            found = "timeout"
        facts = {"job_id": work.job_id, "activity": name, "attempt": attempt.number}
        if isinstance(found, float):
            logger.warning(
                "activity %s of workflow %s failed, attempt %s, next in %s s: %s",
                name,
                work.job_id,
                attempt.number,
                f"{found:g}",
                stored["message"],
                extra=facts,
            )
            return Decided(stored, "error", int(stored["code"]), found)
        logger.error(
            "activity %s of workflow %s failed, attempt %s, the last: %s",
            name,
            work.job_id,
            attempt.number,
            stored["message"],
            extra=facts,
        )
        return Decided(stored | {"ended": found}, "error", int(stored["code"]))


_TOOK_TOO_LONG: Final = frozenset({"start_to_close", "schedule_to_close", "heartbeat"})


def _timed_out(name: str, attempt: Attempt, reason: str | None, seconds: float) -> dict[str, Any]:
    if reason == "heartbeat":
        words = f"activity {name} has sent no heartbeat for {attempt.options['heartbeat']:g} s"
    elif reason == "schedule_to_close":
        every = attempt.options["schedule_to_close"]
        words = f"activity {name} had not ended when its schedule_to_close_timeout, {every:g} s, was over"
    else:
        words = f"activity {name} took longer than its start_to_close_timeout, {seconds:g} s"
    found = simple_failure(words, type="DurableTimeoutError", code=TIMEOUT_CODE)
    return found | {"timeout": reason}


def cut_off_by(step: Step) -> list[tuple[WorkKey, bool]]:
    """Activities that are to end with a step; `True`: they are asked to."""
    asked = [((one.generation, one.activity_id, one.dimension), True) for one in step.cancels]
    return [*((key, False) for key in step.given_up), *asked]


def _nowhere(work: HeldWork, details: Json, within: float) -> None:
    """No activity is run here."""


def _key(generation: str, name: str, dimension: tuple[int, ...]) -> str:
    return f"{generation}:{name}:{'.'.join(map(str, dimension))}"
