"""What has happened to a durable function's job, as its strand is told: outcomes, in the order in which they count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from msgspec import Struct

from hotmesh.core.durable.commands import Completion
from hotmesh.core.durable.history import order
from hotmesh.core.durable.state import TURN
from hotmesh.core.state.job import Event, Job
from hotmesh.core.state.step import Consumed
from hotmesh.core.values import UNDEFINED


class Recorded(Struct, frozen=True):
    """What events of a job come to."""

    completions: list[Completion]
    consumed: tuple[Consumed, ...]
    interrupt: Mapping[str, Any] | None = None
    """The job is ended from outside, with these options; the rest does not matter then."""
    failed_turn: str | None = None
    """A turn was asked for whose steps could not be made, for this reason."""


def record(job: Job, events: Sequence[Event], now: datetime) -> Recorded:
    """What they come to; rows they came from are consumed whatever they say."""
    seq = job.seq + 1
    completions: list[Completion] = []
    consumed: list[Consumed] = []
    interrupt: Mapping[str, Any] | None = None
    failed: str | None = None
    for event in events:
        if event.receipt is not None:
            consumed.append(Consumed(job.generation, event.receipt))
        if event.kind == "interrupt":
            interrupt = event.data if isinstance(event.data, dict) else {}
        elif event.activity_id == TURN:
            if event.status == "error":
                failed = str(event.data.get("message") if isinstance(event.data, dict) else event.data)
        elif len(event.dimension) == 2:
            completions.append(_completion(event, order(seq, len(completions)), now))
    return Recorded(completions, tuple(consumed), interrupt, failed)


def _completion(event: Event, seq: int, now: datetime) -> Completion:
    position = event.dimension[1]
    if event.kind == "timer":
        return Completion(position, "sleep", event.activity_id, "done", now, seq)
    value = None if event.data is UNDEFINED else event.data
    if event.status == "error":
        error = value if isinstance(value, dict) else {"message": str(value), "code": event.code}
        return Completion(
            position, "step", event.activity_id, "failed", now, seq, error=error, attempt=event.attempt
        )
    return Completion(
        position,
        "step",
        event.activity_id,
        "done",
        now,
        seq,
        value=cast("Any", value),
        attempt=event.attempt,
    )
