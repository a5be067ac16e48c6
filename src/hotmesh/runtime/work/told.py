"""What workers here have told engines elsewhere, until it is known what became of it.

An answer is *told* first, if it can be: the engine that sent the work, and most likely has the job in memory, hears the whole of
it in a notification, and its step takes the work itself. So nothing is written for the answer, and nobody waits for the
disk. What is told may be lost, with the notification or the engine: the work stays held until it is gone, and where it
is still there after `HANDOVER` seconds, its answer is written as a row for every engine.

    answer ── can be told ──► told ── the work is gone ──► done
       │                        └─── it is still held ──┐
       └────── cannot ──────────────────────────────────┴──► written (`answer_writer`)

A process that dies before that has answered nothing: others do the work again, as if its callback had not returned.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from hotmesh.postgres.rows import HeldWork
from hotmesh.postgres.work import WorkQueue
from hotmesh.runtime.wake import HANDOVER
from hotmesh.runtime.work.served import Served

Answer = tuple[HeldWork, str, int, str | None]
"""Work, and its status, code and encoded data."""

Notice = tuple[str, str]
"""Channel and text of a notification."""

MOST_TOLD = 5_000
"""Answers that are kept at once."""

MOST_CHARACTERS = 16_000_000
"""Of which they consist at most."""

LOOK = 200
"""Answers that are looked up at once."""


class Told(NamedTuple):
    answer: Answer
    size: int
    due: float
    """When it is written if the work is still held, by `time.monotonic`."""


class Found(NamedTuple):
    """What a look has found."""

    taken: list[HeldWork]
    """It is gone: an engine took the answer, or the job is over."""
    lost: list[HeldWork]
    """Others have it."""
    untaken: list[Answer]
    """It is held, and the time of the engine is over."""


class ToldAnswers:
    """The answers that one process has told, in the order in which it did."""

    def __init__(self, work: WorkQueue, member: str, served: Served) -> None:
        self._work = work
        self._member = member
        self._served = served
        self._told: deque[Told] = deque()
        self._characters = 0

    def __bool__(self) -> bool:
        return bool(self._told)

    def notice(self, answer: Answer, waiting: int) -> Notice | None:
        """How the engine is told an answer; None: it has to be written. `waiting`: how many are about to be told.

        What others have had before is written: its answer may be what they died of.
        """
        if (
            answer[0].delivery > 1
            or self._served.stopping
            or len(self._told) + waiting >= MOST_TOLD
            or self._characters >= MOST_CHARACTERS
        ):
            return None
        return self._work.notice(self._member, *answer)

    async def tell(self, connection: Any, telling: Sequence[tuple[Answer, Notice]]) -> None:
        """Tell answers, and keep them."""
        await self._work.tell(connection, [notice for _, notice in telling])
        due = time.monotonic() + HANDOVER
        for answer, (_, text) in telling:
            self._told.append(Told(answer, len(text), due))
            self._characters += len(text)

    @property
    def due_in(self) -> float | None:
        """Seconds until it is time for a look; None: there is nothing to look for."""
        if not self._told:
            return None
        return 0.0 if self._served.stopping else self._told[0].due - time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for a look."""
        left = self.due_in
        return left is not None and left <= 0

    async def look(self, connection: Any) -> Found:
        """Look what has become of those whose time is over, and of those that were told a little later: most of them have been taken
        by now, and one look is enough for all.
        """
        now = time.monotonic()
        latest = float("inf") if self._served.stopping else now + HANDOVER / 2
        looked = [told for told in islice(self._told, LOOK) if told.due <= latest]
        held = await self._work.still_held(connection, self._member, [told.answer[0] for told in looked])
        found = Found([], [], [])
        later: list[Told] = []
        for told, kept in zip(looked, held, strict=True):
            self._told.popleft()
            if kept and told.due > now and not self._served.stopping:
                later.append(told)
                continue
            self._characters -= told.size
            if kept:
                found.untaken.append(told.answer)
            else:
                (found.taken if kept is None else found.lost).append(told.answer[0])
        self._told.extendleft(reversed(later))
        return found
