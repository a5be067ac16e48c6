"""What an explanation says, as data for programs (`as_dict`) and as text for people (`str`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from hotmesh.core.state.job import Dimension
from hotmesh.core.values import Json
from hotmesh.observe.explain.text import address, ago, length, plural, shortened
from hotmesh.observe.jobs import State

ReasonKind = Literal[
    "work",
    "held",
    "retry",
    "message",
    "timer",
    "signal",
    "child",
    "join",
    "answers",
    "pending",
    "lost",
    "step",
]
"""What a branch may wait for: a worker to take its work, the worker that holds it, its next try, an engine, a moment, a
signal, a job, other branches, further answers after a pending one, `resume`; `step`: a step of a durable function that runs in
a process; `lost`: nothing will come by itself."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that a branch waits for. Fields that a kind has no use for are empty.

    `text` says it in words, `unblock` what would end it. `until`: when something happens by itself. `topic`: of the
    work or the signal, `key` of the signal. `attempt` counts failures, `error` is what the last one raised. `child`: the awaited job. `arrived` and
    `missing`: the branches of a join.
    """

    kind: ReasonKind
    text: str
    unblock: str
    since: datetime | None = None
    until: datetime | None = None
    topic: str | None = None
    key: str | None = None
    attempt: int = 0
    held_by: str | None = None
    error: str | None = None
    child: Explanation | None = None
    arrived: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Branch:
    """An activity that is open at an address, and everything that could move it on."""

    activity_id: str
    type: str
    dimension: Dimension
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Buried:
    """A dead letter of the job; `requeue` or `discard` it by its id."""

    id: int
    topic: str
    activity_id: str
    dimension: Dimension
    reason: str
    dead_at: datetime


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job does not move, at one moment (`now`, by the database's clock). `str()` tells it to people.

    `status` counts the open obligations. `branches` are what is open, `notes` what else keeps or ended the job.
    `unaccounted` obligations have left no trace: nothing will come for them. `omitted`: rows beyond those looked at.
    """

    app_id: str
    job_id: str
    topic: str
    version: str
    state: State
    status: int
    error: Json
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    now: datetime
    branches: tuple[Branch, ...]
    dead_letters: tuple[Buried, ...]
    notes: tuple[str, ...]
    unaccounted: int = 0
    omitted: int = 0
    queue: str | None = None
    """Of a durable function, whose name is the topic: where it runs. None: a graph."""

    @property
    def unblock(self) -> tuple[str, ...]:
        """What would move the job on, each thing once."""
        found = [reason.unblock for branch in self.branches for reason in branch.reasons]
        found += [f"requeue dead letter {letter.id}" for letter in self.dead_letters]
        return tuple(dict.fromkeys(found))

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON: moments as ISO text, addresses as `0/0`."""
        found: dict[str, Any] = _plain(self)
        found["unblock"] = list(self.unblock)
        return found

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _lines(told: Explanation) -> Iterator[str]:
    age = length(told.now - told.created_at)
    if told.queue is None:
        yield f"job {told.job_id} on topic {told.topic}, version {told.version} of app {told.app_id}"
    else:
        yield f"workflow {told.topic} {told.job_id} on queue {told.queue}, of namespace {told.app_id}"
    counted = told.state == "running" and told.queue is None
    opened = f", {plural(told.status, 'open obligation')}" if counted else ""
    yield f"  {told.state}{opened}; created {age} ago, last step {ago(told.now - told.updated_at)}"
    for note in told.notes:
        yield f"  {note}"
    for branch in told.branches:
        yield from _branch_lines(branch, function=told.queue is not None)
    if told.omitted:
        yield ""
        yield f"  … and for {told.omitted:,} more of the same"
    if told.unaccounted:
        yield ""
        yield f"  {plural(told.unaccounted, 'open obligation')} left no trace (a job that it"
        yield "  awaited was scrubbed, perhaps): nothing will come for them"
        yield "      → interrupt the job"
    for letter in told.dead_letters:
        yield ""
        where = f"{letter.activity_id} at {address(letter.dimension)}: " if letter.activity_id else ""
        yield f"  dead letter {letter.id}, {ago(told.now - letter.dead_at)}: {where}{letter.reason}"
        yield f"      → requeue dead letter {letter.id}, or discard it"


def _branch_lines(branch: Branch, *, function: bool) -> Iterator[str]:
    yield ""
    yield f"  {_operation(branch) if function else _title(branch)} waits for"
    for reason in branch.reasons:
        yield f"    {reason.text}"
        if reason.error is not None:
            yield f"      last error: {shortened(reason.error)}"
        yield f"      → {reason.unblock}"
        if reason.child is not None:
            yield from (f"      {line}" if line else "" for line in _lines(reason.child))


def _title(branch: Branch) -> str:
    if not branch.activity_id:
        return "the job itself"
    kind = f"{branch.type} " if branch.type else ""
    return f"{kind}{branch.activity_id} at {address(branch.dimension)}"


def _operation(branch: Branch) -> str:
    if not branch.activity_id:
        return "its next turn"
    return f"{branch.activity_id} (operation {branch.dimension[-1]})"


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, moments as ISO text, addresses as `0/0`."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Explanation | Branch | Reason | Buried):
        found = {}
        for name in value.__dataclass_fields__:
            item = getattr(value, name)
            found[name] = address(item) if name == "dimension" else _plain(item)
        return found
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
