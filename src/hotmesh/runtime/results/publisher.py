"""Tells what has committed to who waits for a job or listens to its topic: in this process from memory, in others by NOTIFY.

What goes to other processes has to wait for a connection, in its order; it is numbered, so that what was sent twice, because
the answer to the first time was lost, is received once (`receiver`). A payload over the limit of NOTIFY is sent as a
reference, and the receiver reads the job itself.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Mapping
from itertools import islice

from anyio.abc import TaskGroup

from hotmesh.core.state.step import Notice
from hotmesh.core.wire import dumps_text
from hotmesh.errors import DatabaseError, NoConnectionError
from hotmesh.postgres import notifications
from hotmesh.postgres.connect.failures import fault
from hotmesh.postgres.database import Database
from hotmesh.runtime import ids
from hotmesh.runtime.members.listener import Listener, member_channel
from hotmesh.runtime.results.subscribers import Subscribers
from hotmesh.runtime.results.waiting import Callers
from hotmesh.runtime.service import Flag, forever

logger = logging.getLogger("hotmesh.results")

MOST_UNSENT = 10_000
"""Messages for other processes that wait for a connection; of more, the oldest are dropped."""

MOST_SENT_AT_ONCE = 500

MOST_NOTIFIED = 7_999
"""Bytes that Postgres takes in a NOTIFY."""

LONGEST_PAUSE = 5.0
"""Seconds between two attempts to send without a connection."""


class ResultPublisher:
    """Delivers notices to callers and subscribers; `run` sends those for other processes."""

    def __init__(
        self,
        database: Database,
        member: str,
        listener: Listener,
        limit: int,
        callers: Callers,
        subscribers: Subscribers,
    ) -> None:
        self._database = database
        self._member = member
        self._listener = listener
        self._limit = min(limit, MOST_NOTIFIED)
        self._answer = callers.answer
        self._subscribers = subscribers
        self._outbox: deque[tuple[int, Notice, frozenset[str]]] = deque()
        self._sender = ids.guid()
        """Not the member's id, under which another process may go on after this one, counting from 1 again."""
        self._sent = 0
        self._refused = 0
        """How many of the first in the outbox go one by one, because one of them cannot be sent at all."""
        self._wake = Flag()

    def notify(self, notice: Notice, listeners: Mapping[str, Collection[str]]) -> None:
        """A job of this process has something to say; its step is committed. `listeners`: members by topic, elsewhere."""
        if notice.topic is not None and self._subscribers:
            self._subscribers.publish(notice.topic, notice.seq, notice.metadata, notice.data)
        others: frozenset[str] = frozenset()
        if listeners and notice.topic is not None:
            others = frozenset(listeners.get(notice.topic, ()))
            others |= frozenset(listeners.get(f"{notice.topic}.{notice.job_id}", ()))
        if notice.reply_to == self._member or not notice.interim:
            # Also of a job that another process has started, somebody here may wait for the end.
            self._answer(notice.metadata, notice.data)
        if notice.reply_to is not None and notice.reply_to != self._member:
            others |= {notice.reply_to}
        if others:
            self._sent += 1
            self._outbox.append((self._sent, notice, others))
            self._wake.set()

    # -- lifetime ----------------------------------------------------------------------------------------

    async def run(self, tasks: TaskGroup) -> None:
        """Start to send."""
        tasks.start_soon(self._send_loop, name="send results")

    async def drain(self) -> None:
        """Send what is still to be sent, once."""
        try:
            while self._outbox:
                await self._send(MOST_SENT_AT_ONCE)
        except Exception as error:
            logger.error("results not announced to other processes", exc_info=error)

    async def _send_loop(self) -> None:
        await forever(
            self._send_some,
            logger,
            lost="results for other processes",
            failed="results not announced to other processes",
            longest_pause=LONGEST_PAUSE,
        )

    async def _send_some(self) -> None:
        """Wait for something to send, and send it. Raises what is in the way; of what waits then, the newest is kept."""
        if not self._outbox:
            self._wake.clear()
            await self._wake.wait()
        try:
            await self._send(MOST_SENT_AT_ONCE if not self._refused else 1)
            self._refused = max(self._refused - 1, 0)
        except Exception as error:
            if isinstance(error, NoConnectionError) or (
                isinstance(error, DatabaseError) and fault(error) != "values"
            ):
                # No connection, a full queue of notifications, a cancelled statement: it can be sent later.
                while len(self._outbox) > MOST_UNSENT:
                    self._outbox.popleft()
                raise
            # Nothing is wrong with the connection, but with one of these: they go one by one.
            if self._refused:
                lost = self._outbox.popleft()[1]
                logger.error("result not announced", extra={"job_id": lost.job_id}, exc_info=error)
            self._refused = self._refused - 1 if self._refused else min(len(self._outbox), MOST_SENT_AT_ONCE)

    async def _send(self, most: int) -> None:
        """Send what waits, in its order. If the answer is lost it is sent again, and received once."""
        batch = list(islice(self._outbox, most))
        channel = self._listener.channel
        messages = []
        for number, notice, members in batch:
            text = self._encode(number, notice)
            messages += [(member_channel(channel, member), text) for member in members]
        async with self._database.connection() as connection:
            await notifications.notify(self._database, connection, messages)
        for sent in batch:
            if self._outbox and self._outbox[0] is sent:
                self._outbox.popleft()

    def _encode(self, number: int, notice: Notice) -> str:
        conceal = self._database.payload.conceal
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
