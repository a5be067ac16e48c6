"""How the engine of a process passes on the work of its own steps to the workers there, without a claim.

A worker has *slots*, room for one callback each. A slot is

    free   ── hold_slot, offer_overflow, a claim ──►  held    for work that a statement on its way may reserve
    held   ── start, overflow_claimed ─────────────►  taken   its callback runs, or waits for one to be over
    held   ── free_slot, overflow_refused ─────────►  free    the row was not reserved
    taken  ── the callback is over ────────────────►  free    its answer may still be on its way

`ServedWorker.used` counts those that are held or taken; each that is held leaves that state by exactly one of these calls.
A rate leaves fewer slots to be held than there are (`ServedWorker.most`), and lets go of none that is held already.

The work of a step that is about to be committed goes one of two ways, as `hold_slot` finds a free slot or not:

    hold_slot → True: its row is written as reserved by this member
        the step is committed ─► start: the callback runs from memory
        it is not             ─► free_slot
    hold_slot → False: its row is written for everybody
        the step is committed ─► overflow: remembered here, and announced to others (`wake_text`)
        a slot becomes free   ─► offer_overflow: a slot is held; the next commit tries to reserve the row as well
            committed         ─► overflow_claimed: it starts, or somebody else has it, and the slot is free
            not committed     ─► overflow_refused: back to what overflowed, the first in line

As long as something has overflowed, no slot is held for what comes after it. At the other end, the work is held, and its
lease renewed, until the answer is committed or means nothing any more (`answers_committed`), which is later than the slot
is free.

Where the answer to a commit is lost, its slots stay held until a look at the rows tells whether it was written. If
that cannot be known for a reservation, `lost_reservations` gives back what it may have reserved.

Everything here is memory. If the process dies, rows that it reserved are visible again when their lease lapses, and rows
that overflowed were for everybody all along.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

import anyio

from hotmesh.core.state.job import Event, WorkReceipt
from hotmesh.core.state.step import Work
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.wake import work_hint
from hotmesh.runtime.work.answers import Answers
from hotmesh.runtime.work.lease import LeaseKeeper
from hotmesh.runtime.work.lost_reservations import LostReservations
from hotmesh.runtime.work.served import Run, Served


class Slots:
    """The workers of one process, as its engine sees them."""

    def __init__(
        self,
        served: Served,
        run: Run,
        answers: Answers,
        leases: LeaseKeeper,
        lost_reservations: LostReservations,
    ) -> None:
        self._served = served
        self._find = served.find
        self._holder = served.holder
        self._run = run
        self._answers = answers
        self._leases = leases
        self.lost_reservations = lost_reservations
        self._last_hint: dict[str, float] = {}
        """Topic → when the others were last told of its overflow, by `anyio.current_time`."""

    def hold_slot(self, work: Work) -> bool:
        """Hold a slot for work that is about to be committed; False: its row is for everybody."""
        served = self._find(work.topic, work.workflow_name)
        if served is None or self._served.stopping or self._served.closed or served.overflow:
            return False
        if served.free <= 0:
            return False
        served.used += 1
        return True

    def takes(self, topic: str, workflow_name: str) -> bool:
        """Whether work of this name may start here: there is a worker, and it is neither stopping nor paused."""
        served = self._find(topic, workflow_name)
        return (
            served is not None
            and not (self._served.stopping or self._served.closed)
            and served.most > 0
            and not served.retired
        )

    def free_slot(self, work: Work) -> None:
        """Free a slot that was held for work: its step was not committed, or did not reserve it."""
        served = self._holder(work)
        served.used -= 1
        self._served.freed(served)

    def start(self, work: Work, created_at: datetime | None, since: float) -> None:
        """The work is committed and held by this process: run its callback from memory.

        `since`: when its reservation was sent (`time.monotonic`); a commit that had to wait has used up some of it.
        """
        self._run(self._holder(work), _held(work, created_at), since)

    def overflow(self, work: Work, created_at: datetime | None) -> None:
        """The work is committed as a row for everybody; remember it if this process would take it."""
        served = self._find(work.topic, work.workflow_name)
        if served is None or self._served.stopping:
            return
        if len(served.overflow) < OVERFLOW_LIMIT:
            served.overflow.append(_held(work, created_at))
        else:
            served.backlog = True
        self._served.freed(served)

    @property
    def can_take(self) -> bool:
        """Whether there are free slots for work that overflowed."""
        return not (self._served.stopping or self._served.closed) and any(
            served.overflow and served.free > 0 for served in self._served.workers.values()
        )

    def offer_overflow(self) -> list[HeldWork]:
        """Hold slots for work that overflowed.

        The caller tries to reserve its rows, and says `overflow_claimed` or `overflow_refused`.
        """
        found: list[HeldWork] = []
        if self._served.stopping or self._served.closed:
            return found
        for served in self._served.workers.values():
            while served.overflow and served.free > 0:
                served.used += 1
                found.append(served.overflow.popleft())
        return found

    def overflow_claimed(self, works: Sequence[HeldWork], held: Collection[int], since: float) -> None:
        """The commit went through. `held`: the positions of those that nobody else had. `since`: as for `start`."""
        for position, work in enumerate(works):
            served = self._holder(work)
            if position not in held:
                served.used -= 1
            else:
                self._run(served, work, since)

    def overflow_refused(self, works: Sequence[HeldWork]) -> None:
        """The commit did not reserve these rows: they stay in this process's overflow."""
        for work in reversed(works):
            served = self._holder(work)
            served.used -= 1
            served.overflow.appendleft(work)

    def answers_committed(self, generation: str, events: Iterable[Event]) -> None:
        """What these events report is committed, or given up: the work that they answer need not be held any longer."""
        for event in events:
            if isinstance(event.receipt, WorkReceipt):
                self._leases.release((generation, event.receipt.activity_id, event.receipt.dimension))

    def answer_by_stream(self, by_stream: bool) -> None:
        """Whether answers go to the engine stream even though this process has an engine, because that is slowed."""
        self._answers.by_stream = by_stream

    def wake_text(self, left: Collection[Work]) -> str | None:
        """The hint for work that this process leaves to others.

        Topics served here, too, only overflowed: the others are told now and then, so that a busy process does not
        put a notification, which makes commits wait for each other, into each of its commits.
        """
        if not left:
            return None
        now = anyio.current_time()
        wanted = set()
        for topic, name in {(work.topic, work.workflow_name) for work in left}:
            served = self._find(topic, name)
            # A worker that is paused, or stands still while work is tried alone, leaves its work to the others, who have to hear of it as if there were none here.
            if served is not None and served.most and not self._served.closed:
                if now - self._last_hint.get(topic, -1.0) < OVERFLOW_HINT:
                    continue
                self._last_hint[topic] = now
            wanted.add(topic)
        return work_hint(wanted) if wanted else None


def _held(work: Work, created_at: datetime | None) -> HeldWork:
    """Work of a step as the worker gets it."""
    return HeldWork(
        work.job_id,
        work.generation,
        work.activity_id,
        work.dimension,
        work.topic,
        work.data,
        work.workflow_name,
        retry=work.retry,
        retry_policy=work.retry_policy,
        trace_id=work.trace_id,
        span_id=work.span_id,
        created_at=created_at,
    )


OVERFLOW_LIMIT = 1_000
"""Overflowed work remembered per worker; what is beyond is found by claiming."""

OVERFLOW_HINT = 0.05
"""Seconds between two hints about a topic that this process serves, too."""
