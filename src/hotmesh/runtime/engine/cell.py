"""What the engine works on: a job in memory with its events, and a step on its way to a commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hotmesh.core.state.job import Event, Job, StartRequest
from hotmesh.core.state.step import Step, WorkKey


class HandedEvent(Event, frozen=True):
    """An event whose row other engines may take from some moment on: after that it is theirs, or found by the stream."""

    until: float = 0.0
    """By `time.monotonic`."""


class CachedJob:
    """A job in memory, with the events that wait for its next step. `busy`: a step of it is on its way."""

    __slots__ = (
        "blocked",
        "busy",
        "events",
        "failures",
        "generation",
        "job",
        "job_id",
        "job_size",
        "size",
    )

    def __init__(self, job_id: str, generation: str) -> None:
        self.job_id = job_id
        self.generation = generation
        self.job: Job | None = None
        self.events: list[Event] = []
        self.busy = False
        self.blocked = 0
        """Commits in a row that found the job in another transaction's hands."""
        self.failures = 0
        self.size = 0
        """Bytes, as far as they are known; `job_size`: those of them that are not records."""
        self.job_size = 0


class Pending:
    """A step on its way to a commit, and what to do with the verdict."""

    __slots__ = (
        "cell",
        "done",
        "epoch",
        "events",
        "held_until",
        "local",
        "lost",
        "request",
        "sent",
        "step",
        "taken",
    )

    def __init__(
        self,
        step: Step,
        epoch: int,
        *,
        cell: CachedJob | None = None,
        events: Sequence[Event] = (),
        request: StartRequest | None = None,
        done: Callable[[Job | BaseException], None] | None = None,
        taken: frozenset[str] = frozenset(),
    ) -> None:
        self.step = step
        self.epoch = epoch
        self.cell = cell
        self.events = events
        self.request = request
        self.done = done
        self.taken = taken
        self.local: list[bool] = []
        """For each piece of work of the step: whether a slot of a local worker is kept for it."""
        self.sent = 0.0
        """When it was last sent, by `time.monotonic`."""
        self.held_until: float | None = None
        """Until when to wait for its id, which is in an open transaction, by `time.monotonic`."""
        self.lost = False
        """The answer to a commit of it was lost; it may yet come through."""

    @property
    def reserved(self) -> set[WorkKey]:
        """The work of the step that is, or is to be, reserved for this process."""
        return {work.key for work, local in zip(self.step.work, self.local, strict=False) if local}
