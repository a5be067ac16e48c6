"""Tells who waits for a job or listens to its topic: in this process from memory, in others by NOTIFY.

A payload over the limit of NOTIFY travels as a reference, and the receiver reads the job itself.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from hotmesh.core.step import Notice
from hotmesh.core.wire import dumps_text, loads
from hotmesh.errors import ConnectionFailedError, ConnectionLostError, JobTimeoutError
from hotmesh.runtime.callback import Attributes
from hotmesh.runtime.listener import Listener, member_channel

if TYPE_CHECKING:
    from hotmesh.postgres.store import Store

logger = logging.getLogger("hotmesh.results")


class JobOutput(Attributes):
    """A job as its caller gets it: `output.data`, and `output.metadata` under the published short names."""

    __slots__ = ()

    def __init__(self, metadata: dict[str, Any], data: dict[str, Any]) -> None:
        super().__init__(metadata=Attributes(metadata), data=data)


class _Caller:
    """Somebody in this process who waits for a job."""

    __slots__ = ("answer", "job_id", "since", "timer")

    def __init__(self, answer: asyncio.Future[JobOutput]) -> None:
        self.answer = answer
        self.job_id: str | None = None
        self.since = 0.0
        self.timer: asyncio.TimerHandle | None = None

    def time_out(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(JobTimeoutError(self.job_id))


REREAD = 5.0
"""Seconds between two looks at a job that somebody waits for."""

Subscriber = Callable[[str, JobOutput], Awaitable[None] | None]
Subscription = tuple[str, Subscriber]


class Announcer:
    """Delivers notices. `run` sends those for other processes and calls the subscribers of this one."""

    def __init__(
        self,
        store: Store,
        member: str,
        listener: Listener,
        limit: int,
        read: Callable[[str], Awaitable[JobOutput | None]],
    ) -> None:
        self._store = store
        self._member = member
        self._listener = listener
        self._limit = limit
        self._read = read
        self._waiting: dict[str, _Caller] = {}
        self._subscribers: list[Subscription] = []
        self._outbox: list[tuple[str, dict[str, Any]]] = []
        self._calls: list[tuple[Subscriber, str, JobOutput]] = []
        self._references: list[tuple[str | None, dict[str, Any]]] = []
        self._wake = anyio.Event()
        self._link = store.link("results")

    def expect(self, generation: str) -> asyncio.Future[JobOutput]:
        """A future for the first message about a job that is about to be created."""
        caller = _Caller(asyncio.get_running_loop().create_future())
        self._waiting[generation] = caller
        return caller.answer

    def sent(self, generation: str, job_id: str, limit: float) -> None:
        """The job exists: from now, its caller waits `limit` seconds; then the future gets a JobTimeoutError."""
        caller = self._waiting[generation]
        caller.job_id = job_id
        loop = asyncio.get_running_loop()
        caller.since = loop.time()
        caller.timer = loop.call_later(limit, caller.time_out)

    def forget(self, generation: str) -> None:
        caller = self._waiting.pop(generation, None)
        if caller is not None and caller.timer is not None:
            caller.timer.cancel()

    def abandon(self, error: BaseException) -> None:
        """No answer will come any more: every waiting caller gets the error."""
        for caller in self._waiting.values():
            if not caller.answer.done():
                caller.answer.set_exception(error)

    @property
    def waiting(self) -> int:
        """Callers that wait for an answer."""
        return len(self._waiting)

    @property
    def topics(self) -> set[str]:
        return {topic for topic, _ in self._subscribers}

    def subscribe(self, topic: str, callback: Subscriber) -> None:
        self._subscribers.append((topic, callback))

    def unsubscribe(self, topic: str, callback: Subscriber | None) -> None:
        self._subscribers = [
            (name, call)
            for name, call in self._subscribers
            if name != topic or (callback is not None and call is not callback)
        ]

    # -- own notices -------------------------------------------------------------------------------------

    def tell(self, notice: Notice, listeners: Sequence[str]) -> None:
        """A job of this process has something to say; its step is committed."""
        others = {member for member in listeners if member != self._member}
        if notice.reply_to == self._member:
            self._answer(notice.metadata, notice.data)
        elif notice.reply_to is not None:
            others.add(notice.reply_to)
        if notice.topic is not None and self._subscribers:
            self._publish(notice.topic, notice.job_id, notice.metadata, notice.data)
        if others:
            payload = {
                "j": {"topic": notice.topic, "metadata": notice.metadata, "data": notice.data},
            }
            self._outbox += [(member, payload) for member in others]
            self._wake.set()

    def heard(self, message: dict[str, Any]) -> None:
        """Another process says something about a job."""
        job = message["j"]
        if job.get("ref"):
            self._references.append((job["topic"], job["metadata"]))
            self._wake.set()
            return
        self._received(job["topic"], job["metadata"], job["data"])

    def _received(self, topic: str | None, metadata: dict[str, Any], data: dict[str, Any]) -> None:
        self._answer(metadata, data)
        if topic is not None and self._subscribers:
            self._publish(topic, metadata["jid"], metadata, data)

    def _answer(self, metadata: dict[str, Any], data: dict[str, Any]) -> None:
        caller = self._waiting.get(metadata["gid"])
        if caller is not None and not caller.answer.done():
            # The job's data must not change under the engine, whatever the caller does with it.
            caller.answer.set_result(JobOutput(metadata, loads(dumps_text(data))))

    def _publish(self, topic: str, job_id: str, metadata: dict[str, Any], data: dict[str, Any]) -> None:
        for name, callback in self._subscribers:
            if name in (topic, f"{topic}.{job_id}"):
                self._calls.append((callback, topic, JobOutput(dict(metadata), loads(dumps_text(data)))))
                self._wake.set()

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._send_loop, name="send results")
        tasks.start_soon(self._reread_loop, name="reread jobs")

    async def close(self) -> None:
        await self._link.close()

    async def drain(self) -> None:
        """Send what is still to be sent, once."""
        if self._outbox:
            await self._send()

    async def _reread_loop(self) -> None:
        """A notification may be missed (a broken connection): jobs that callers wait for are read now and then."""
        while True:
            await anyio.sleep(REREAD)
            before = asyncio.get_running_loop().time() - REREAD
            for generation, caller in list(self._waiting.items()):
                if caller.job_id is None or caller.since > before or caller.answer.done():
                    continue
                try:
                    output = await self._read(caller.job_id)
                except (ConnectionLostError, ConnectionFailedError):
                    break
                if output is None or output.metadata["gid"] != generation:
                    continue
                if output.metadata["js"] <= 0 or "err" in output.metadata:
                    self._answer(dict(output.metadata), output.data)

    async def _send_loop(self) -> None:
        while True:
            if not (self._outbox or self._calls or self._references):
                self._wake = anyio.Event()
                await self._wake.wait()
            references, self._references = self._references, []
            for reference in references:
                await self._fetch(*reference)
            calls, self._calls = self._calls, []
            for callback, topic, output in calls:
                await self._call(callback, topic, output)
            if self._outbox:
                try:
                    await self._send()
                except (ConnectionLostError, ConnectionFailedError) as error:
                    # Messages are hints, not durable: who waits reads the job.
                    logger.warning("results not announced to other processes", extra={"error": str(error)})
                    self._outbox.clear()

    async def _call(self, callback: Subscriber, topic: str, output: JobOutput) -> None:
        try:
            result = callback(topic, output)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            logger.error("subscriber raised", extra={"topic": topic}, exc_info=error)

    async def _fetch(self, topic: str | None, metadata: dict[str, Any]) -> None:
        """Read a job that was too large to be sent; one that is gone by now is told by its metadata alone."""
        try:
            state = await self._read(metadata["jid"])
        except (ConnectionLostError, ConnectionFailedError) as error:
            logger.warning("result could not be read", extra={"job_id": metadata["jid"], "error": str(error)})
            return
        found = state or JobOutput({**metadata, "_gone": True}, {})
        self._received(topic, found.metadata, found.data)

    async def _send(self) -> None:
        outbox, self._outbox = self._outbox, []
        channel = self._listener.channel
        async with self._link.use() as connection:
            messages = [
                (member_channel(channel, member), self._encode(payload)) for member, payload in outbox
            ]
            await self._store.notify(connection, messages)

    def _encode(self, payload: dict[str, Any]) -> str:
        text = dumps_text(payload)
        if len(text.encode()) <= self._limit:
            return text
        job = payload["j"]
        metadata = {key: job["metadata"].get(key) for key in ("jid", "gid", "tpc", "app", "js")}
        return dumps_text({"j": {"topic": job["topic"], "metadata": metadata, "data": None, "ref": True}})
