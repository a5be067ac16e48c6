"""What this process serves: its workers with their slots, who takes which work, and who hears of a slot that is free.

`slots` says what becomes of a slot. Here is what the rooms around it share: the engine's side holds slots, claiming holds
those that are left, running takes and frees them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from hotmesh.core.state.retry import RetryPolicy
from hotmesh.core.state.step import Work
from hotmesh.errors import ConfigError
from hotmesh.postgres.rows import HeldWork
from hotmesh.runtime.messages import Decided, StreamData
from hotmesh.runtime.pace import Pace
from hotmesh.runtime.service import Flag
from hotmesh.runtime.threads import Threads
from hotmesh.runtime.wake import EVERY_TOPIC, Wake
from hotmesh.runtime.work.worker import Worker

WorkSelector = tuple[str, str | None]
"""A topic and the workflow name that a worker takes of it; None: every name that no other worker here takes."""


class Judge(Protocol):
    """Says what is particular about the work of some workers: its limits, and what becomes of its attempts."""

    def begin(self, work: HeldWork, cut_off: Callable[[Any], None]) -> None:
        """An attempt is about to run; `cut_off` ends it, for a reason."""
        ...

    def end(self, work: HeldWork) -> None:
        """It is over, or left."""
        ...

    def cut_off(self, work: HeldWork) -> None:
        """It was cut off by somebody else."""
        ...

    def decide(self, work: HeldWork, reason: str | None, error: BaseException) -> Decided | None:
        """What becomes of one that has raised, or was cut off for this reason; None: it says nothing about that."""
        ...


@dataclass(slots=True)
class Share:
    """Slots that several workers have together."""

    most: int
    judge: Judge
    members: list[ServedWorker] = field(default_factory=list)

    @property
    def free(self) -> int:
        """Slots that none of them uses."""
        return self.most - sum(member.used for member in self.members)


@dataclass(frozen=True, slots=True)
class ActivityWorker(Worker):
    """One for an activity: with others it has the slots of `share` together, whose judge says what becomes of its work."""

    share: Share | None = None
    in_thread: bool = False
    """Its function is a plain one."""


@dataclass(slots=True)
class ServedWorker:
    """One topic, or one workflow name of it, as this process serves it."""

    worker: Worker
    callback: Callable[[StreamData], Awaitable[Any]]
    retry: RetryPolicy | None
    timeout: float | None
    slots: int
    """Callbacks that may run at once."""
    most: int
    """Slots that may be in use now: all of them, unless a rate leaves only the next one open, or none."""
    used: int = 0
    """Slots that are not free: taken by callbacks and by what waits for one, or held for what is on its way."""
    pace: Pace | None = None
    counts: dict[int, int] = field(default_factory=dict)
    """Answers so far, by code."""
    backlog: bool = True
    """There may be rows on the stream that wait for a slot here."""
    overflow: deque[HeldWork] = field(default_factory=deque)
    """Work of this process's own steps that found no slot. Its rows are for everybody; as slots become free, the
    next commit also reserves what nobody else has taken, without a claim of its own."""
    queue: deque[HeldWork] = field(default_factory=deque)
    """Work that waits for a callback to be over."""
    running: int = 0
    """Callbacks that run, and those that were given up and still go on."""
    kept: int = 0
    """Slots of callbacks that were given up and still go on."""
    share: Share | None = None
    """With others, of an activity."""
    threads: Threads | None = None
    """In which it runs, if it is a plain function."""
    in_thread: bool = False
    """Of an activity: its function is a plain one."""
    retired: bool = False
    """It takes nothing more."""
    name: str = field(init=False)
    """Of the tasks in which its callbacks run."""

    def __post_init__(self) -> None:
        self.name = f"worker {self.worker.topic}"

    @property
    def free(self) -> int:
        """Slots that work may take now."""
        own = 0 if self.retired else self.most - self.used
        return own if self.share is None else min(own, self.share.free)

    @property
    def selector(self) -> WorkSelector:
        return self.worker.topic, self.worker.workflow_name


Run = Callable[[ServedWorker, HeldWork, float], None]
"""Runs the callback for work that has a slot; see `Callbacks.run`."""


class Served:
    """All that one process serves, and whether it still does."""

    def __init__(self, wake: Wake) -> None:
        self.wake = wake
        """Set when there may be something to claim."""
        self.slot_free: Callable[[], None] = _nothing
        """Called when there is a slot for work that overflowed."""
        self.stopping = False
        """Nothing new is started, and what has not started is given back."""
        self.closed = False
        """Nothing new is started for now, because work is tried alone in this process (`company`)."""
        self.ended = Flag()
        """Set while stopping, each time something ended for which that may wait."""
        self.workers: dict[WorkSelector, ServedWorker] = {}
        self.names: dict[str, list[str]] = {}
        """Topic → the workflow names that have workers of their own here."""

    def check(self, worker: Worker, *, started: bool) -> None:
        """Raise ConfigError for a worker that cannot be added, or no longer once the instance has `started`."""
        if (worker.topic, worker.workflow_name) in self.workers:
            named = "" if worker.workflow_name is None else f" for workflow name {worker.workflow_name}"
            raise ConfigError(f"this instance already has a worker on topic {worker.topic}{named}")
        if started and worker.workflow_name is not None and (worker.topic, None) in self.workers:
            # Work of the name may be with that one by now, and nobody could tell whose slot it has.
            raise ConfigError(
                f"topic {worker.topic} has a worker that takes any workflow name; one for {worker.workflow_name} "
                "can only be there from the start: name it in workers= of init"
            )

    def add(self, served: ServedWorker) -> None:
        topic, name = served.selector
        self.workers[topic, name] = served
        if name is not None:
            self.names.setdefault(topic, []).append(name)

    def remove(self, served: ServedWorker) -> None:
        """Nothing of it is here any more."""
        topic, name = served.selector
        self.workers.pop((topic, name), None)
        if name is not None and name in self.names.get(topic, ()):
            self.names[topic].remove(name)
            if not self.names[topic]:
                del self.names[topic]
        if served.share is not None and served in served.share.members:
            served.share.members.remove(served)

    @property
    def topics(self) -> list[str]:
        return list(dict.fromkeys(topic for topic, _ in self.workers))

    def find(self, topic: str, workflow_name: str) -> ServedWorker | None:
        """Who takes the work here: the worker of its name, else the one that takes any."""
        if topic in self.names:
            named = self.workers.get((topic, workflow_name))
            if named is not None:
                return named
        return self.workers.get((topic, None))

    def holder(self, work: HeldWork | Work) -> ServedWorker:
        """Who has a slot for the work. Raises AssertionError if nobody can."""
        served = self.find(work.topic, work.workflow_name)
        if served is None:
            raise AssertionError(f"nobody here takes {work.workflow_name} of topic {work.topic}")
        return served

    @property
    def in_flight(self) -> int:
        """What runs, or is about to: slots that are not free, but for those of callbacks that were given up."""
        return sum(served.used - served.kept for served in self.workers.values())

    def reopened(self) -> None:
        """Work may be started again."""
        for served in list(self.workers.values()):
            served.backlog = True
            self.freed(served)
        self.wake.set()

    def expect(self, topics: Collection[str]) -> bool:
        """There may be work on these topics; whether they are served here."""
        found = False
        for (topic, _), served in self.workers.items():
            if topic in topics or EVERY_TOPIC in topics:
                served.backlog = True
                found = True
        return found

    def given_back(self, works: Iterable[HeldWork]) -> None:
        """These rows are for everybody again, or will be."""
        for work in works:
            served = self.find(work.topic, work.workflow_name)
            if served is not None:
                served.backlog = True
        self.wake.set()

    def freed(self, served: ServedWorker) -> None:
        """A slot is free, or may be: whoever has work for one hears of it."""
        if served.pace is not None:
            self.open_next(served, served.pace)
        self._announce(served)

    def open_next(self, served: ServedWorker, pace: Pace) -> None:
        """Leave one slot open if the next message may start, else none until it may."""
        if served.pace is not pace:
            return
        if pace.left() > 0:
            served.most = 0
            pace.call(lambda: self.open_next(served, pace))
            return
        closed = served.most <= served.used
        served.most = min(served.slots, served.used + 1)
        if closed and served.most > served.used:
            self._announce(served)

    def _announce(self, served: ServedWorker) -> None:
        for one in (served,) if served.share is None else served.share.members:
            if one.overflow and one.free > 0:
                self.slot_free()
            elif one.backlog and not self.stopping:
                self.wake.set()
        if self.stopping:
            self.ended.set()


def _nothing() -> None:
    """No engine, nothing overflows."""
