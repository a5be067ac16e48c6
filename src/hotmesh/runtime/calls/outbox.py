"""Sends what callers ask of jobs: whatever is ready goes out in one transaction; what comes meanwhile goes with the next.

It is a group commit of its own, beside that of the steps (`runtime/engine/group_commit.py`): a call has no step that could be
computed again, one that cannot be stored must hold up no job, and a member without an engine has calls, too.

States of a call: ready, on its way, answered. What commits together: all calls of a batch; each counts by itself. One
that Postgres refuses is found out by sending each of its batch alone, and raised to its own caller.

A signal that has met its waiter, an answer that was added, and an interrupt are rows of the engine stream. The engine of this process
goes on with them at once, from memory or by loading their jobs, and others leave them alone for `HANDOVER` seconds: no
notification, no look at the stream.

A crash leaves          because
nothing of a batch      before its commit: no caller has been answered
all of a batch          after it: the rows are there, and for every engine when those seconds are over. Who was not answered does
                        not know whether what it sent has arrived
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import anyio
from anyio.abc import TaskGroup

from hotmesh.core.state.job import MessageReceipt
from hotmesh.errors import ConnectionLostError, JobError, NoConnectionError
from hotmesh.postgres.calls import Call, Sent, SignalCall, send_calls
from hotmesh.runtime.engine.engine import Engine
from hotmesh.runtime.engine.in_flight import InFlight
from hotmesh.runtime.engine.job_cache import HandedEvent
from hotmesh.runtime.engine.limits import EngineLimits
from hotmesh.runtime.service import Flag
from hotmesh.runtime.surroundings import Surroundings
from hotmesh.runtime.wake import EVENTS, HANDOVER

logger = logging.getLogger("hotmesh")

HANDED_ON: Final = {"signal", "added", "interrupt"}
"""What an engine can go on with from memory; the rest is about jobs that are not live yet."""

SECOND_BATCH: Final = 8
"""So many calls that are ready are gathered for a transaction of their own while another one is on its way; the connection takes one at a time."""


class _Entry:
    """A call on its way, and who waits for it."""

    __slots__ = ("answer", "call")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def tell(self, outcome: str) -> None:
        if not self.answer.done():
            self.answer.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Outbox:
    """The calls of one member. `run` starts its loops; before and after that each call goes out by itself."""

    def __init__(self, surroundings: Surroundings, engine: Engine | None, limits: EngineLimits) -> None:
        self._database = surroundings.database
        self._engine = engine
        self._most = surroundings.settings.batch
        self._patience = surroundings.settings.connect_timeout
        self._most_size = limits.commit_size
        self._ready: deque[_Entry] = deque()
        self._news = Flag()
        self._more = Flag()
        """For the second loop: there is enough to prepare the next transaction while one is on its way."""
        self._dispatched = 0
        """Batches that are on their way."""
        self._in_flight = InFlight()
        self._running = False

    async def run(self, tasks: TaskGroup) -> None:
        """Start the loops. What is not sent when they are cancelled is not sent at all."""
        self._running = True
        tasks.start_soon(self._serve, self._news, name="calls")
        tasks.start_soon(self._serve, self._more, name="more calls")

    async def drain(self) -> None:
        """Return once every call has been answered."""
        await self._in_flight.none()

    async def send(self, call: Call) -> str:
        """Send a call; what became of it, as of `send_calls`, once that is durable. Raises DatabaseError, JobError.

        Where somebody holds the row that it is about, it is sent again and again, for as long as there may be no connection.
        """
        began, pause = time.monotonic(), 0.005
        while True:
            outcome = await self._send_once(call)
            if outcome == "again":
                continue
            if outcome != "busy":
                return outcome
            if time.monotonic() - began > self._patience:
                raise JobError(
                    {"message": f"{_named(call)} is held by another transaction; try again", "code": 409}
                )
            await anyio.sleep(pause)
            pause = min(pause * 2, 0.1)

    async def _send_once(self, call: Call) -> str:
        entry = _Entry(call)
        if not self._running:
            await self._dispatch([entry])
            return entry.answer.result()
        self._in_flight.begin()
        try:
            self._ready.append(entry)
            self._call_for_loops()
            return await entry.answer
        finally:
            self._in_flight.end()

    # -- the loop ----------------------------------------------------------------------------------------

    def _call_for_loops(self) -> None:
        if self._ready:
            self._news.set()
        if self._dispatched and len(self._ready) >= SECOND_BATCH:
            self._more.set()

    async def _serve(self, news: Flag) -> None:
        batch: Sequence[_Entry] = ()
        try:
            while True:
                await news.take()
                batch = self._gather()
                if not batch:
                    continue
                self._dispatched += 1
                try:
                    self._call_for_loops()
                    await self._dispatch(batch)
                finally:
                    self._dispatched -= 1
                self._call_for_loops()
        finally:
            self._running = False
            for entry in (*batch, *self._ready):
                entry.fail(ConnectionLostError(f"this instance has stopped; {UNKNOWN}"))
            self._ready.clear()

    def _gather(self) -> list[_Entry]:
        """Take what is ready, and nothing of callers who have gone: nothing of theirs has been sent.

        With nothing on its way, half of a larger batch is left to the other loop.
        """
        most = self._most
        if not self._dispatched and len(self._ready) >= 2 * SECOND_BATCH:
            most = min(most, (len(self._ready) + 1) // 2)
        batch: list[_Entry] = []
        later: list[_Entry] = []
        keys: set[tuple[str, str]] = set()
        size = 0
        while self._ready and len(batch) < most and size < self._most_size:
            entry = self._ready.popleft()
            if entry.answer.done():
                continue
            call = entry.call
            if isinstance(call, SignalCall):
                # One after the other: the first may end the wait.
                key = (call.topic, call.keys[0])
                if key in keys:
                    later.append(entry)
                    continue
                keys.add(key)
            batch.append(entry)
            size += len(call.text)
        self._ready.extendleft(reversed(later))
        return batch

    async def _dispatch(self, batch: Sequence[_Entry]) -> None:
        """Get a batch through; if it fails as a whole, one by one, so that a call which cannot be stored harms no other."""
        if not batch:
            return
        here = self._engine is not None and not self._engine.leaves_to_others
        delays = [HANDOVER if here and _kind(entry.call) in HANDED_ON else 0.0 for entry in batch]
        until = time.monotonic() + HANDOVER * 0.8  # less than all of the time: a step takes some of it
        try:
            async with self._database.connection() as connection:
                calls = [entry.call for entry in batch]
                found = await send_calls(self._database, connection, calls, delays, EVENTS)
        except NoConnectionError as error:
            for entry in batch:
                lost = ConnectionLostError(str(error))
                lost.__cause__ = error
                entry.fail(lost)
        except Exception as error:  # noqa: BLE001 - it is the caller's
            if len(batch) == 1:
                batch[0].fail(error)
                return
            for entry in batch:
                await self._dispatch([entry])
        else:
            for entry, sent in zip(batch, found, strict=True):
                entry.tell(sent.outcome)
            self._hand_on(batch, found, until if here else None)

    def _hand_on(self, batch: Sequence[_Entry], found: Sequence[Sent], until: float | None) -> None:
        """Let the engine of this process go on with what was sent, or look at the stream."""
        if self._engine is None:
            return
        for entry, sent in zip(batch, found, strict=True):
            call = entry.call
            if sent.outcome not in ("sent", "delivered"):
                continue
            if until is None or sent.message_id is None or _kind(call) not in HANDED_ON:
                self._engine.wake()
            else:
                self._engine.deliver(sent.job_id, sent.generation, _event(call, sent, sent.message_id, until))


def _event(call: Call, sent: Sent, message_id: str, until: float) -> HandedEvent:
    """What was sent, as the stream would hand it out."""
    kind = _kind(call)
    return HandedEvent(
        kind,  # type: ignore[arg-type]  # of HANDED_ON
        sent.activity_id,
        sent.dimension,
        call.status,
        call.code,
        call.data,
        message_id if kind == "added" else "",
        MessageReceipt(message_id),
        started_at=sent.at,
        until=until,
    )


UNKNOWN: Final = "whether it has arrived is not known"


def _kind(call: Call) -> str:
    return "signal" if isinstance(call, SignalCall) else call.kind


def _named(call: Call) -> str:
    return f"who waits for signal {call.topic}" if isinstance(call, SignalCall) else f"job {call.job_id}"
