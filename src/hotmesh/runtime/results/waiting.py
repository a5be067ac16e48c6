"""The callers in this process who wait for a job: `pubsub`.

A caller is announced before its job is created, because the answer may be there sooner than the news that the job is. It
is answered by the first message about the job, from this process or another; since a notification may be lost, the job is
also read now and then, and at once where this process knows that it has missed something. A caller is forgotten when it
has its answer, gives up, or is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from anyio.abc import TaskGroup

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

ReadJob = Callable[[str], Awaitable[tuple[JobOutput, int] | None]]
"""The state of a job and its version, by its id; None if there is no such job."""


class _Caller:
    """Somebody in this process who waits for a job."""

    __slots__ = ("answer", "job_id", "limit", "since", "timer", "topic")

    def __init__(self, answer: asyncio.Future[JobOutput], topic: str, limit: float) -> None:
        self.answer = answer
        self.topic = topic
        self.limit = limit
        self.job_id: str | None = None
        self.since = 0.0
        """When the job was created, or read last."""
        self.timer: asyncio.TimerHandle | None = None

    def time_out(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(JobTimeoutError(self.job_id, topic=self.topic, seconds=self.limit))


class Callers:
    """All callers of one member, by the generation of their job. `run` reads what they wait for."""

    def __init__(self, listener: Listener, read: ReadJob) -> None:
        self._listener = listener
        self._read = read
        self._waiting: dict[str, _Caller] = {}
        self._missed: set[str] = set()
        """Generations of which something was not told that their callers may wait for."""
        self._look = Flag()

    @property
    def waiting(self) -> int:
        """Callers that wait for an answer."""
        return len(self._waiting)

    # -- coming and going --------------------------------------------------------------------------------

    def expect(self, generation: str, topic: str, limit: float) -> asyncio.Future[JobOutput]:
        """A future for the first message about a job that is about to be created; for `limit` seconds from then on."""
        caller = _Caller(asyncio.get_running_loop().create_future(), topic, limit)
        self._waiting[generation] = caller
        return caller.answer

    def sent(self, generation: str, job_id: str) -> None:
        """The job exists: from now, its caller waits as long as it said; then the future gets a JobTimeoutError."""
        caller = self._waiting[generation]
        caller.job_id = job_id
        loop = asyncio.get_running_loop()
        caller.since = loop.time()
        caller.timer = loop.call_later(caller.limit, caller.time_out)

    def forget(self, generation: str) -> None:
        """The caller has its answer, or does not wait for it any more; nothing of it stays."""
        caller = self._waiting.pop(generation, None)
        if caller is None:
            return
        if caller.timer is not None:
            caller.timer.cancel()
        if caller.answer.done() and not caller.answer.cancelled():
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

    def close(self, error: BaseException) -> None:
        """No answer will come any more: every waiting caller gets the error."""
        for caller in self._waiting.values():
            if not caller.answer.done():
                caller.answer.set_exception(error)

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
