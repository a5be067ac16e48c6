"""Hears what other processes say of jobs, and passes it on to the callers and subscribers of this one.

A message says who sent it, under an id that is new in each process, and counts that sender's messages; one that was sent twice
counts once. One whose state was too large to be sent has a reference instead: the job is read then, and what comes of the
same job meanwhile waits, so that messages of one job keep their order.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup

from hotmesh.errors import CodecError, DatabaseError
from hotmesh.postgres.connect.failures import backoff
from hotmesh.postgres.database import Database
from hotmesh.runtime.results.subscribers import Subscribers
from hotmesh.runtime.results.waiting import Callers, ReadJob
from hotmesh.runtime.service import Flag

logger = logging.getLogger("hotmesh.results")

MOST_FETCHES = 8
"""How often a state that was too large to be sent is asked for before it is given up."""

LONGEST_PAUSE = 5.0
"""Seconds between two of these attempts."""

MOST_SENDERS = 1_000
"""Processes of which it is remembered what came last from them."""


class _Told(msgspec.Struct):
    """What is said of a job. `ref`: the state was too large to be sent, and is to be read."""

    topic: str | None
    metadata: dict[str, Any]
    seq: int = 0
    data: Any = None
    ref: bool = False


class _Sent(msgspec.Struct):
    """A message from another process: sender, its number there, and what is said."""

    job: _Told = msgspec.field(name="j")
    sender: str | None = msgspec.field(name="f", default=None)
    number: int = msgspec.field(name="n", default=0)


class ResultReceiver:
    """What comes from other processes. `run` reads what was too large to be sent."""

    def __init__(self, database: Database, callers: Callers, subscribers: Subscribers, read: ReadJob) -> None:
        self._database = database
        self._callers = callers
        self._subscribers = subscribers
        self._read = read
        self._last_of: OrderedDict[str, int] = OrderedDict()
        """Sender → the number of the last message that came from it."""
        self._fetching: dict[str, deque[_Told]] = {}
        """Generation → what was told of the job and has to wait, because a state before it must be read first."""
        self._wake = Flag()

    def on_message(self, message: dict[str, Any]) -> None:
        """Another process says something about a job. Raises ValueError or KeyError if it does not."""
        sent = msgspec.convert(message, _Sent)
        if not self._is_new(sent):
            return
        told = sent.job
        try:
            self._reveal(told)
        except CodecError as error:
            self._undecodable(told, error)
            return
        generation = told.metadata["gid"]
        before = self._fetching.get(generation)
        if before is not None:
            before.append(told)
        elif told.ref:
            self._fetching[generation] = deque([told])
            self._wake.set()
        else:
            self._received(told, told.metadata, told.data or {})

    async def run(self, tasks: TaskGroup) -> None:
        """Start to read what is too large to be sent."""
        tasks.start_soon(self._fetch_loop, name="fetch results")

    # -- one message -------------------------------------------------------------------------------------

    def _is_new(self, sent: _Sent) -> bool:
        if sent.sender is None:
            return True
        if sent.number <= self._last_of.get(sent.sender, 0):
            return False
        self._last_of[sent.sender] = sent.number
        self._last_of.move_to_end(sent.sender)
        if len(self._last_of) > MOST_SENDERS:
            self._last_of.popitem(last=False)
        return True

    def _reveal(self, told: _Told) -> None:
        reveal = self._database.payload.reveal
        told.data = reveal(told.data)
        if "err" in told.metadata:
            told.metadata["err"] = reveal(told.metadata["err"])

    def _undecodable(self, told: _Told, error: CodecError) -> None:
        job_id = told.metadata["jid"]
        logger.error("result cannot be decoded", extra={"job_id": job_id, "error": str(error)})
        self._callers.fail(told.metadata["gid"], error)

    def _received(
        self, told: _Told, metadata: dict[str, Any], data: dict[str, Any], *, upto: int | None = None
    ) -> None:
        self._callers.answer(metadata, data)
        if told.topic is not None and self._subscribers:
            self._subscribers.publish(told.topic, told.seq, metadata, data, upto=upto)

    # -- what was too large to be sent -------------------------------------------------------------------

    async def _fetch_loop(self) -> None:
        """Read the jobs whose state was too large to be sent; what comes of a job meanwhile waits, for its order."""
        while True:
            await self._wake.take()
            while self._fetching:
                for generation, waiting in list(self._fetching.items()):
                    while waiting:
                        told = waiting.popleft()
                        if told.ref:
                            await self._fetch(told)
                        else:
                            self._received(told, told.metadata, told.data or {})
                    del self._fetching[generation]

    async def _fetch(self, told: _Told) -> None:
        """Tell the job as it is now; one that is gone by now is told by its metadata alone."""
        job_id = told.metadata["jid"]
        for failures in range(1, MOST_FETCHES + 1):
            try:
                found = await self._read(job_id)
                break
            except CodecError as error:
                self._undecodable(told, error)
                return
            except DatabaseError as error:
                logger.warning("result could not be read", extra={"job_id": job_id, "error": str(error)})
                await anyio.sleep(backoff(failures, longest=LONGEST_PAUSE))
            except Exception as error:
                # A version that is gone, or whatever else is wrong with this one job.
                logger.error("result could not be read", extra={"job_id": job_id}, exc_info=error)
                return
        else:
            return
        if found is None or found[0].metadata["gid"] != told.metadata["gid"]:
            self._received(told, {**told.metadata, "_gone": True}, {})
            return
        output, seq = found
        self._received(told, output.metadata, output.data, upto=seq)
