"""The callers in this process who wait for a job: `pubsub`.

A caller is announced before its job is created, because the answer may be there sooner than the news that the job is. It
is answered by the first message about the job, from this process or another; since a notification may be lost, the job is
also read now and then, and at once where this process knows that it has missed something. A caller is forgotten when it
has its answer, gives up, or is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

from anyio.abc import TaskGroup

from hotmesh.core.state.job import Job
from hotmesh.core.wire import dumps_text, loads
from hotmesh.errors import CodecError, DatabaseError, JobTimeoutError
from hotmesh.runtime.members.listener import Listener
from hotmesh.runtime.results.output import JobOutput
from hotmesh.runtime.service import Flag

logger = logging.getLogger("hotmesh.results")

REREAD_PERIOD = 5.0
"""Seconds between two looks at a job that somebody waits for."""

LOOKS_PER_PERIOD = 5
"""In how many steps these seconds pass, so that a job is looked at when they are over and not up to twice as late."""

DEAF_REREAD_PERIOD = 0.5
"""The same where no notification can arrive."""

LEAST_SWEPT = 1_000
"""Time limits that are kept at least, of callers who wait and of those who do not any more, before the latter are removed."""

ReadJob = Callable[[str], Awaitable[tuple[JobOutput, int] | None]]
"""The state of a job and its version, by its id; None if there is no such job."""


class Caller:
    """Somebody in this process who waits for a job; told by the engine when that is created, or why it is not."""

    __slots__ = ("_limits", "answer", "generation", "job_id", "limit", "since", "topic")

    def __init__(self, limits: _TimeLimits, generation: str, topic: str, limit: float) -> None:
        self._limits = limits
        self.generation = generation
        self.answer: asyncio.Future[JobOutput] = limits.loop.create_future()
        """The first message about the job. A bare future: some thousand of these are told a second."""
        self.topic = topic
        self.limit = limit
        self.job_id: str | None = None
        self.since = 0.0
        """When the job was created, or read last."""

    def created(self, job: Job) -> None:
        """The job exists: from now, the caller waits as long as it said; then the future gets a JobTimeoutError."""
        self.job_id = job.job_id
        if not self.answer.done():
            self.since = self._limits.add(self)

    def not_created(self, error: BaseException) -> None:
        """The job does not exist, or that is not known."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def time_out(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(JobTimeoutError(self.job_id, topic=self.topic, seconds=self.limit))


class _TimeLimits:
    """Until when callers wait: one timer for all of them, since almost every one has its answer long before.

    Of a caller who does not wait any more, only the limit stays, until it is reached or half of all are such.
    """

    def __init__(self, waiting: Mapping[str, Caller]) -> None:
        self.loop = asyncio.get_running_loop()
        self._waiting = waiting
        self._due: list[tuple[float, str]] = []
        """A heap: until when, and the generation."""
        self._most = LEAST_SWEPT
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def add(self, caller: Caller) -> float:
        """The time of a caller begins to run; returns what it is now."""
        now = self.loop.time()
        due = now + caller.limit
        if len(self._due) >= self._most:
            self._due = [item for item in self._due if item[1] in self._waiting]
            heapify(self._due)
            self._most = max(LEAST_SWEPT, 2 * len(self._due))
        heappush(self._due, (due, caller.generation))
        if self._timer is None or due < self._timer_at:
            self._set(due)
        return now

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due.clear()

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self.loop.call_at(due, self._over)

    def _over(self) -> None:
        self._timer = None
        now = self.loop.time()
        while self._due:
            due, generation = self._due[0]
            caller = self._waiting.get(generation)
            if caller is not None and due > now:
                self._set(due)
                return
            heappop(self._due)
            if caller is not None:
                caller.time_out()


class Callers:
    """All callers of one member, by the generation of their job. `run` reads what they wait for."""

    def __init__(self, listener: Listener, read: ReadJob) -> None:
        self._listener = listener
        self._read = read
        self._waiting: dict[str, Caller] = {}
        self._limits: _TimeLimits | None = None
        self._missed: set[str] = set()
        """Generations of which something was not told that their callers may wait for."""
        self._look = Flag()

    @property
    def waiting(self) -> int:
        """Callers that wait for an answer."""
        return len(self._waiting)

    # -- coming and going --------------------------------------------------------------------------------

    def expect(self, generation: str, topic: str, limit: float) -> Caller:
        """Somebody who waits for a job that is about to be created; for `limit` seconds from then on."""
        limits = self._limits
        if limits is None:
            limits = self._limits = _TimeLimits(self._waiting)
        caller = self._waiting[generation] = Caller(limits, generation, topic, limit)
        return caller

    def forget(self, generation: str) -> None:
        """The caller has its answer, or does not wait for it any more; nothing of it stays."""
        caller = self._waiting.pop(generation, None)
        if caller is None:
            return
        if not caller.answer.done():
            # It was never awaited: its job could not even be sent.
            caller.answer.cancel()
        elif not caller.answer.cancelled():
            # Looked at, or asyncio complains of an error that a caller who has gone never saw.
            caller.answer.exception()

    # -- answers -----------------------------------------------------------------------------------------

    def answer(self, metadata: dict[str, Any], data: dict[str, Any]) -> None:
        """Something was said about a job: whoever waits for it has its answer."""
        caller = self._waiting.get(metadata["gid"])
        if caller is not None and not caller.answer.done():
            # The job's data must not change under the engine, whatever the caller does with it.
            caller.answer.set_result(JobOutput(dict(metadata), loads(dumps_text(data))))

    def fail(self, generation: str, error: CodecError) -> None:
        """Whoever waits for the job gets this error: the answer is there, and cannot be read here."""
        caller = self._waiting.get(generation)
        if caller is not None and not caller.answer.done():
            caller.answer.set_exception(error)

    def recheck(self, generation: str) -> None:
        """Something may have been committed of which this process never heard: look at the job for its caller."""
        if generation in self._waiting:
            self._missed.add(generation)
            self._look.set()

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Start to read jobs that callers wait for."""
        tasks.start_soon(self._reread_loop, name="reread jobs")

    def close(self, error: BaseException, unknown: BaseException) -> None:
        """No answer will come any more: every waiting caller gets the error; `unknown`: whose job may not exist."""
        for caller in self._waiting.values():
            caller.not_created(unknown if caller.job_id is None else error)
        if self._limits is not None:
            self._limits.close()

    async def _reread_loop(self) -> None:
        """A notification may be missed (a broken connection): jobs that callers wait for are read now and then."""
        period = REREAD_PERIOD if self._listener.hears else DEAF_REREAD_PERIOD
        while True:
            await self._look.wait(period / LOOKS_PER_PERIOD if self._waiting else period)
            self._look.clear()
            await self._reread(period)

    async def _reread(self, period: float) -> None:
        """Read the jobs of which nothing was heard or seen for this time, and of those something was missed."""
        missed, self._missed = self._missed, set()
        now = asyncio.get_running_loop().time()
        for generation, caller in list(self._waiting.items()):
            if caller.job_id is None or caller.answer.done():
                continue
            if caller.since > now - period and generation not in missed:
                continue
            since, caller.since = caller.since, now
            try:
                found = await self._read(caller.job_id)
            except DatabaseError:
                caller.since = since
                break
            except CodecError as error:
                self.fail(generation, error)
                continue
            except Exception as error:
                logger.error("job could not be read", extra={"job_id": caller.job_id}, exc_info=error)
                continue
            if found is None or found[0].metadata["gid"] != generation:
                continue
            output = found[0]
            if output.metadata["js"] <= 0 or "err" in output.metadata:
                self.answer(output.metadata, output.data)
