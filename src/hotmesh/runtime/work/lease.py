"""Renews the leases of held work, from a thread of its own.

A callback that blocks the event loop must not lose its message, so renewal does not run on that loop: a thread with
its own loop and its own connection does it. It starts when the first lease has been held for half its length; most
work is long done by then and costs nothing. What heartbeats of activities say is written by it, too.

Work is held until its answer is committed, and not only until its callback returns: where commits are slow, the work
would be done again meanwhile, and the answer of the first time be refused.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from contextvars import copy_context
from typing import Final

import anyio

from hotmesh.core.state.step import WorkKey
from hotmesh.postgres.connect.link import Link
from hotmesh.postgres.rows import HeldWork
from hotmesh.postgres.work import WorkQueue

logger = logging.getLogger("hotmesh.lease")


class LeaseKeeper:
    """The leases of one instance. `hold` and `release` belong to the event loop; the rest runs in the thread."""

    def __init__(self, work: WorkQueue, member: str, lease: float) -> None:
        self._work = work
        self._source = work.database.source.apart()
        self._member = member
        self._lease = lease
        self._held: dict[WorkKey, float] = {}
        self.lost: set[WorkKey] = set()
        """Work whose lease was found lost, and whose callback still runs."""
        self._answered: dict[WorkKey, float] = {}
        """Work whose answer is on its way to a commit → since when, by `time.monotonic`."""
        self.asked: set[WorkKey] = set()
        """Work that is to end, as its row has said."""
        self._details: dict[WorkKey, str] = {}
        """What heartbeats have said and is not written; encoded."""
        self._writing: dict[WorkKey, str] = {}
        """Of these, what the thread is about to write."""
        self._details_due = math.inf
        """When it is to be, by `time.monotonic`."""
        self._written_at = -math.inf
        self._lock = threading.Lock()
        """For the details."""
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        # In the context of the instance, so that what it logs says whose leases they are.
        watch = copy_context().run
        self._thread = threading.Thread(target=watch, args=(self._watch,), name="hotmesh leases", daemon=True)
        self._thread.start()

    def hold(self, work: HeldWork, since: float) -> None:
        """`since`: when the reservation was sent, by `time.monotonic`; the database's clock started no earlier."""
        self._held[work.key] = since

    def finish(self, work: HeldWork) -> bool:
        """The callback is done, and its answer will be on its way; False if the lease was found lost."""
        key = work.key
        if self.lost and key in self.lost:
            self.release(key)
            return False
        self._answered[key] = time.monotonic()
        return True

    def is_answered(self, work: HeldWork) -> bool:
        """Whether an answer of this process is on its way."""
        return work.key in self._answered

    def holds(self, work: HeldWork) -> bool:
        """Whether the work, or its answer that is still to be written, is held here."""
        return work.key in self._held or work.key in self._answered

    def since(self, work: HeldWork) -> float | None:
        """When the work was reserved, or its lease renewed, by `time.monotonic`; None: others have it."""
        return self._held.get(work.key)

    def release(self, key: WorkKey) -> None:
        """What became of the work is written, or somebody else's concern."""
        self._held.pop(key, None)
        self._answered.pop(key, None)
        self.lost.discard(key)
        if self.asked:
            self.asked.discard(key)
        if self._details or self._writing:
            self.details_of(key)

    def note(self, work: HeldWork, details: str, within: float) -> None:
        """What a heartbeat has said, encoded, is to be written within so many seconds: the first at once, the last of many then."""
        with self._lock:
            self._details[work.key] = details
            due = max(time.monotonic(), self._written_at + min(within, self._lease / 6))
            if due >= self._details_due:
                return
            self._details_due = due
        self._wake.set()

    def details_of(self, key: WorkKey) -> str | None:
        """What was noted for it and may not be written yet; whoever asks writes it."""
        with self._lock:
            writing = self._writing.pop(key, None)
            return self._details.pop(key, writing)

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(min(self._lease / 6, max(self._details_due - time.monotonic(), 0)))
            self._wake.clear()
            if self._stop.is_set():
                return
            due, details = self._due(), self._details_to_write()
            if not due and not details:
                continue
            try:
                anyio.run(self._renew, list({*due, *details}), details)
            except Exception as error:  # noqa: BLE001 - without this thread, leases would lapse for ever
                # The lease may still hold; it is tried again, and the answer is checked by the database anyway.
                logger.warning("leases could not be renewed", extra={"count": len(due), "error": str(error)})
                with self._lock:
                    self._details = self._writing | self._details
                    self._details_due = time.monotonic() + self._lease / 6

    def _details_to_write(self) -> dict[WorkKey, str]:
        with self._lock:
            now = time.monotonic()
            if now < self._details_due:
                return {}
            found, self._details = self._details, {}
            self._writing = dict(found)
            self._details_due, self._written_at = math.inf, now
            return found

    def _due(self) -> list[WorkKey]:
        """Leases held for half their length or more since they were taken or renewed."""
        now = time.monotonic()
        # Snapshots in one bytecode-level copy: the event loop adds and removes meanwhile.
        for key, since in self._answered.copy().items():
            if since < now - LONGEST_ANSWERED:
                self.release(key)
        limit = now - self._lease / 2
        return [key for key, since in self._held.copy().items() if since <= limit]

    async def _renew(self, due: list[WorkKey], details: Mapping[WorkKey, str]) -> None:
        link = Link(self._source, name="leases")
        try:
            async with link.use() as connection:
                now = time.monotonic()
                said = [details.get(key) for key in due] if details else None
                held = await self._work.extend(connection, self._member, due, self._lease, said)
        finally:
            await link.close()
        with self._lock:
            self._writing = {}
        for key, kept in zip(due, held, strict=True):
            if key not in self._held:
                continue
            if kept is None or kept:
                self._held[key] = now
                if kept is None:
                    self.asked.add(key)
            else:
                self.lost.add(key)
                self._held.pop(key, None)


LONGEST_ANSWERED: Final = 600.0
"""Seconds for which the lease of answered work is renewed at most; then others do the work."""
