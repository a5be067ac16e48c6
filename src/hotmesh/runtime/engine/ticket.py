"""What travels through the group commit: tickets, and the attempts to commit them.

A ticket is a step on its way to a commit, together with what its owner does about each thing that can become of it:

    submit ──▶ gather ──▶ attempt ──▶ applied      the step is committed
      ▲                     ├───────▶ refused      the job has moved on, or an id is taken: only this step was not written
      │                     ├───────▶ recompute    the definitions have changed: none of the batch was written
      │                     ├───────▶ without      somebody else was first with some of its events
      │                     ├───────▶ unwritten    the answer was lost, and nothing is written so far
      │                     ├───────▶ rejected     Postgres refuses the statement with this step alone
      └─────────────────────┘

Each attempt ends in one of these. After `applied`, the ticket is settled; after any other, its owner submits it
again, or another one in its place, or settles it by telling whoever waits. `give_up` and `abandon` may come at any
time before.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Final

from hotmesh.core.state.job import Event
from hotmesh.core.state.step import Consumed, Step, WorkKey
from hotmesh.postgres.rows import HeldWork
from hotmesh.postgres.steps import Batch, Committed
from hotmesh.runtime import ids

STOPPED: Final = "this instance has been stopped; whether the job was created is not known"


class UncommittedStep:
    """A step that is to be written, and the events of its job that it consumes."""

    __slots__ = ("events", "local", "step")

    def __init__(self, step: Step, events: Sequence[Event] = ()) -> None:
        self.step = step
        self.events = events
        self.local: list[bool] = []
        """For each piece of work of the step: whether a slot of a local worker is held for it. Set by the writer."""

    @property
    def reserved(self) -> set[WorkKey]:
        """The work of the step that is, or is to be, reserved for this process."""
        return {work.key for work, local in zip(self.step.work, self.local, strict=False) if local}


class Attempt:
    """One commit: what is sent with the steps, and what is known of it before there is an answer."""

    __slots__ = ("arguments", "epoch", "overflow", "since", "token")

    def __init__(self, epoch: int, overflow: list[HeldWork] | None = None) -> None:
        self.epoch = epoch
        """Of the definitions under which all its steps were computed."""
        self.overflow = [] if overflow is None else overflow
        """Work that overflowed before, whose rows the commit also reserves; empty once it is settled."""
        self.token = ids.token()
        """Marks the rows it writes, so that a lost answer can be settled."""
        self.since = time.monotonic()
        self.arguments: Batch = _NOTHING


class Ticket(UncommittedStep, ABC):
    """A step on its way to a commit, and what its owner does with the verdict."""

    __slots__ = ("epoch",)

    epoch: int
    """Of the definitions under which the step was computed."""

    def gather(self) -> bool:
        """It goes out now: the step is final. False: there is nothing to commit, and the owner knows."""
        return True

    @abstractmethod
    def recompute(self) -> None:
        """The definitions have changed since: submit it again with a step computed under what holds now."""

    @abstractmethod
    def applied(self, attempt: Attempt, committed: Committed) -> None:
        """The step is committed."""

    @abstractmethod
    async def refused(self, reason: str, taken: str) -> None:
        """Only this step was not written. `reason` as of `commit_steps`; `taken`: the id of a job that is in use."""

    @abstractmethod
    def unwritten(self) -> None:
        """The answer of the commit was lost, and nothing is written so far; it may yet come through."""

    @abstractmethod
    def rejected(self, error: BaseException, *, own: bool) -> None:
        """The database refuses a commit of this step alone. `own`: because of what is in it; else that passes."""

    def alternative(self) -> Step | None:
        """What could be written in place of the step, to find out whether it is the step that is refused; None: not yet."""
        return None

    @abstractmethod
    def without(self, gone: Collection[Consumed]) -> None:
        """Rows that the step answers are gone, so nothing was written: go on with what is left of its events."""

    @abstractmethod
    def give_up(self, error: BaseException) -> bool:
        """There has been no connection for as long as a caller waits. True: the ticket is settled by that."""

    @abstractmethod
    def abandon(self, error: BaseException) -> None:
        """The engine ends; what becomes of the step is not known."""


_NOTHING: Final = Batch()
"""The arguments of an attempt that has not been sent."""
