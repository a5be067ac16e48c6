"""Tells who waits for a job or listens to its topic: in this process from memory, in others by NOTIFY.

A payload over the limit of NOTIFY travels as a reference, and the receiver reads the job itself. Messages of one job keep
their order: what its process sent before, and what another process has overtaken, are told first or not at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from hotmesh.core.state.step import Notice
from hotmesh.core.wire import dumps_text, loads
from hotmesh.errors import (
    CodecError,
    DatabaseError,
    HotMeshError,
    JobTimeoutError,
    NoConnectionError,
)
from hotmesh.postgres.connect.connection import backoff
from hotmesh.runtime import ids
from hotmesh.runtime.members.listener import Listener, member_channel
from hotmesh.runtime.messages import Attributes

if TYPE_CHECKING:
    from hotmesh.postgres.store import Store
    from hotmesh.runtime.results.subscribers import Subscribers

logger = logging.getLogger("hotmesh.results")


class JobMetadata(Attributes):
    """What there is to know about a job, under the published short names; `docs/glossary.md` explains them.

    `jid`, `gid`, `tpc`, `app`, `vrs`, `aid` (of the trigger), `jc` and `ju` (created and updated, `YYYYMMDDHHMMSS.mmm`),
    `ts` (time slice) and `js` (status) are always there; the others if the job has a key, an error (JSON), somebody who
    waits for it, a trace, a parent (`px`: who does not wait), a time to be kept.
    """

    __slots__ = ()

    jid: str
    gid: str
    tpc: str
    app: str
    vrs: str
    aid: str
    jc: str
    ju: str
    ts: str
    js: int
    key: str
    err: str
    ngn: str
    trc: str
    spn: str
    pj: str
    pg: str
    pd: str
    pa: str
    px: bool
    expire: float


class JobOutput(Attributes):
    """A job as its caller gets it: `output.data`, and `output.metadata` under the published short names."""

    __slots__ = ()

    metadata: JobMetadata
    data: dict[str, Any]

    def __init__(self, metadata: dict[str, Any], data: dict[str, Any]) -> None:
        super().__init__(metadata=JobMetadata(metadata), data=data)


class _Told(msgspec.Struct):
    """A message from another process. `ref`: the state was too large to be sent, and is to be read."""

    topic: str | None
    metadata: dict[str, Any]
    seq: int = 0
    data: Any = None
    ref: bool = False


class _Caller:
    """Somebody in this process who waits for a job."""

    __slots__ = ("answer", "job_id", "since", "timer")

    def __init__(self, answer: asyncio.Future[JobOutput]) -> None:
        self.answer = answer
        self.job_id: str | None = None
        self.since = 0.0
        """When the job was created, or read last."""
        self.timer: asyncio.TimerHandle | None = None

    def time_out(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(JobTimeoutError(self.job_id))


REREAD = 5.0
"""Seconds between two looks at a job that somebody waits for."""

LOOKS = 5
"""In how many steps these seconds pass, so that a job is looked at when they are over and not up to twice as late."""

REREAD_DEAF = 0.5
"""The same where no notification can arrive."""

FETCHES = 8
"""How often a state that was too large to be sent is asked for before it is given up."""

MOST_UNSENT = 10_000
"""Messages for other processes that wait for a connection; of more, the oldest are dropped."""

MOST_AT_ONCE = 500

MOST_NOTIFIED = 7_999
"""Bytes that Postgres takes in a NOTIFY."""

MOST_SENDERS = 1_000
"""Processes of which it is remembered what came last from them."""

Read = Callable[[str], Awaitable[tuple[JobOutput, int] | None]]
"""The state of a job and its version, by its id."""


class ResultPublisher:
    """Delivers notices to callers and subscribers; `run` sends those for other processes."""

    def __init__(
        self,
        store: Store,
        member: str,
        listener: Listener,
        limit: int,
        read: Read,
        subscribers: Subscribers,
    ) -> None:
        self._store = store
        self._member = member
        self._listener = listener
        self._limit = min(limit, MOST_NOTIFIED)
        self._read = read
        self._subscribers = subscribers
        self._waiting: dict[str, _Caller] = {}
        self._outbox: deque[tuple[int, Notice, frozenset[str]]] = deque()
        self._sender = ids.guid()
        """Not the member's id, under which another process may go on after this one, counting from 1 again."""
        self._sent = 0
        self._last_of: OrderedDict[str, int] = OrderedDict()
        """Sender → the number of the last message that came from it: one that was sent twice counts once."""
        self._missed: set[str] = set()
        """Generations of which something was not told that their callers may wait for."""
        self._reread_wake = anyio.Event()
        self._fetching: dict[str, deque[_Told]] = {}
        """Generation → what was told of the job and has to wait, because a state before it must be read first."""
        self._wake = anyio.Event()
        self._fetch_wake = anyio.Event()

    # -- callers -----------------------------------------------------------------------------------------

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
        """The caller has its answer, or does not wait for it any more; nothing of it stays."""
        caller = self._waiting.pop(generation, None)
        if caller is None:
            return
        if caller.timer is not None:
            caller.timer.cancel()
        if caller.answer.done() and not caller.answer.cancelled():
            # Looked at, or asyncio complains of an error that a caller who has gone never saw.
            caller.answer.exception()

    def abandon(self, error: BaseException) -> None:
        """No answer will come any more: every waiting caller gets the error."""
        for caller in self._waiting.values():
            if not caller.answer.done():
                caller.answer.set_exception(error)

    @property
    def waiting(self) -> int:
        """Callers that wait for an answer."""
        return len(self._waiting)

    # -- own notices -------------------------------------------------------------------------------------

    def notify(self, notice: Notice, listeners: Mapping[str, Collection[str]]) -> None:
        """A job of this process has something to say; its step is committed."""
        if notice.topic is not None and self._subscribers:
            self._subscribers.publish(notice.topic, notice.seq, notice.metadata, notice.data)
        others: frozenset[str] = frozenset()
        if listeners and notice.topic is not None:
            others = frozenset(listeners.get(notice.topic, ()))
            others |= frozenset(listeners.get(f"{notice.topic}.{notice.job_id}", ()))
        if notice.reply_to == self._member:
            self._answer(notice.metadata, notice.data)
        elif notice.reply_to is not None:
            others |= {notice.reply_to}
        if others:
            self._sent += 1
            self._outbox.append((self._sent, notice, others))
            self._wake.set()

    def recheck(self, generation: str) -> None:
        """Something may have been committed of which this process never heard: look at the job for its caller."""
        if generation in self._waiting:
            self._missed.add(generation)
            self._reread_wake.set()

    # -- from others -------------------------------------------------------------------------------------

    def on_message(self, message: dict[str, Any]) -> None:
        """Another process says something about a job."""
        sender, number = message.get("f"), message.get("n", 0)
        if sender is not None:
            if number <= self._last_of.get(sender, 0):
                return
            self._last_of[sender] = number
            self._last_of.move_to_end(sender)
            if len(self._last_of) > MOST_SENDERS:
                self._last_of.popitem(last=False)
        told = msgspec.convert(message["j"], _Told)
        try:
            self._reveal(told)
        except CodecError as error:
            logger.error(
                "result cannot be decoded", extra={"job_id": told.metadata["jid"], "error": str(error)}
            )
            self._fail(told.metadata["gid"], error)
            return
        generation = told.metadata["gid"]
        before = self._fetching.get(generation)
        if before is not None:
            before.append(told)
        elif told.ref:
            self._fetching[generation] = deque([told])
            self._fetch_wake.set()
        else:
            self._received(told.topic, told.seq, told.metadata, told.data or {})

    def _reveal(self, told: _Told) -> None:
        reveal = self._store.payload.reveal
        told.data = reveal(told.data)
        if "err" in told.metadata:
            told.metadata["err"] = reveal(told.metadata["err"])

    def _fail(self, generation: str, error: CodecError) -> None:
        """Whoever waits for the job gets this error: the answer is there, and cannot be read here."""
        caller = self._waiting.get(generation)
        if caller is not None and not caller.answer.done():
            caller.answer.set_exception(error)

    def _received(
        self,
        topic: str | None,
        seq: int,
        metadata: dict[str, Any],
        data: dict[str, Any],
        *,
        upto: int | None = None,
    ) -> None:
        self._answer(metadata, data)
        if topic is not None and self._subscribers:
            self._subscribers.publish(topic, seq, metadata, data, upto=upto)

    def _answer(self, metadata: dict[str, Any], data: dict[str, Any]) -> None:
        caller = self._waiting.get(metadata["gid"])
        if caller is not None and not caller.answer.done():
            # The job's data must not change under the engine, whatever the caller does with it.
            caller.answer.set_result(JobOutput(dict(metadata), loads(dumps_text(data))))

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._send_loop, name="send results")
        tasks.start_soon(self._fetch_loop, name="fetch results")
        tasks.start_soon(self._reread_loop, name="reread jobs")

    async def drain(self) -> None:
        """Send what is still to be sent, once."""
        try:
            while self._outbox:
                await self._send()
        except Exception as error:
            logger.error("results not announced to other processes", exc_info=error)

    async def _reread_loop(self) -> None:
        """A notification may be missed (a broken connection): jobs that callers wait for are read now and then."""
        pause = REREAD if self._listener.hears else REREAD_DEAF
        while True:
            with anyio.move_on_after(pause / LOOKS if self._waiting else pause):
                await self._reread_wake.wait()
            self._reread_wake = anyio.Event()
            missed, self._missed = self._missed, set()
            now = asyncio.get_running_loop().time()
            for generation, caller in list(self._waiting.items()):
                if caller.job_id is None or caller.answer.done():
                    continue
                if caller.since > now - pause and generation not in missed:
                    continue
                since, caller.since = caller.since, now
                try:
                    found = await self._read(caller.job_id)
                except DatabaseError:
                    caller.since = since
                    break
                except CodecError as error:
                    self._fail(generation, error)
                    continue
                except HotMeshError as error:
                    logger.error("job could not be read", extra={"job_id": caller.job_id}, exc_info=error)
                    continue
                if found is None or found[0].metadata["gid"] != generation:
                    continue
                output = found[0]
                if output.metadata["js"] <= 0 or "err" in output.metadata:
                    self._answer(output.metadata, output.data)

    # -- sending -----------------------------------------------------------------------------------------

    async def _send_loop(self) -> None:
        failures = refused = 0
        while True:
            if not self._outbox:
                self._wake = anyio.Event()
                await self._wake.wait()
            try:
                await self._send(MOST_AT_ONCE if not refused else 1)
                failures, refused = 0, max(refused - 1, 0)
            except NoConnectionError as error:
                failures += 1
                logger.warning("results not announced to other processes", extra={"error": str(error)})
                while len(self._outbox) > MOST_UNSENT:
                    self._outbox.popleft()
                await anyio.sleep(backoff(failures, longest=5.0))
            except Exception as error:
                # Nothing is wrong with the connection, but with one of these: they go one by one.
                if refused:
                    lost = self._outbox.popleft()[1]
                    logger.error("result not announced", extra={"job_id": lost.job_id}, exc_info=error)
                refused = refused - 1 if refused else min(len(self._outbox), MOST_AT_ONCE)

    async def _send(self, most: int = MOST_AT_ONCE) -> None:
        """Send what waits, in its order. If the answer is lost it is sent again, and received once."""
        batch = list(islice(self._outbox, most))
        channel = self._listener.channel
        messages = []
        for number, notice, members in batch:
            text = self._encode(number, notice)
            messages += [(member_channel(channel, member), text) for member in members]
        async with self._store.connection() as connection:
            await self._store.notify(connection, messages)
        for sent in batch:
            if self._outbox and self._outbox[0] is sent:
                self._outbox.popleft()

    def _encode(self, number: int, notice: Notice) -> str:
        conceal = self._store.payload.conceal
        metadata = notice.metadata
        error = metadata.get("err")
        if error is not None:
            error = conceal(error)
            metadata = {**metadata, "err": error}
        told = {"topic": notice.topic, "seq": notice.seq, "metadata": metadata}
        text = dumps_text({"f": self._sender, "n": number, "j": {**told, "data": conceal(notice.data)}})
        if len(text.encode()) <= self._limit:
            return text
        metadata = {key: notice.metadata.get(key) for key in ("jid", "gid", "tpc", "app", "vrs", "js")}
        if isinstance(error, str) and len(error.encode()) <= self._limit // 2:
            metadata["err"] = error
        told = {"topic": notice.topic, "seq": notice.seq, "metadata": metadata, "ref": True}
        return dumps_text({"f": self._sender, "n": number, "j": told})

    # -- what was too large to be sent -------------------------------------------------------------------

    async def _fetch_loop(self) -> None:
        """Read the jobs whose state was too large to be sent; what comes of a job meanwhile waits, for its order."""
        while True:
            if not self._fetching:
                self._fetch_wake = anyio.Event()
                await self._fetch_wake.wait()
            for generation, waiting in list(self._fetching.items()):
                while waiting:
                    told = waiting.popleft()
                    if told.ref:
                        await self._fetch(told)
                    else:
                        self._received(told.topic, told.seq, told.metadata, told.data or {})
                del self._fetching[generation]

    async def _fetch(self, told: _Told) -> None:
        """Tell the job as it is now; one that is gone by now is told by its metadata alone."""
        for failures in range(1, FETCHES + 1):
            try:
                found = await self._read(told.metadata["jid"])
                break
            except CodecError as error:
                logger.error(
                    "result cannot be decoded", extra={"job_id": told.metadata["jid"], "error": str(error)}
                )
                self._fail(told.metadata["gid"], error)
                return
            except DatabaseError as error:
                logger.warning(
                    "result could not be read", extra={"job_id": told.metadata["jid"], "error": str(error)}
                )
                await anyio.sleep(backoff(failures, longest=5.0))
        else:
            return
        if found is None or found[0].metadata["gid"] != told.metadata["gid"]:
            self._received(told.topic, told.seq, {**told.metadata, "_gone": True}, {})
            return
        output, seq = found
        self._received(told.topic, told.seq, output.metadata, output.data, upto=seq)
