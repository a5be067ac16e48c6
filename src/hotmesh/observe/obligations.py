"""What a job still waits for: the rows outside of it that keep it from being complete."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hotmesh.core.codec import CONCEALED, Payload
from hotmesh.core.state.job import Dimension
from hotmesh.errors import CodecError
from hotmesh.observe.observer import Observer

ObligationKind = Literal["work", "message", "timer", "signal", "child"]
"""A worker to take work, an engine to handle a message, a moment, a signal, the end of a job."""


@dataclass(frozen=True, slots=True)
class Obligation:
    """Something that a job waits for. Fields that a kind has no use for are empty.

    `name`: the topic of work or of a signal, the kind of a message, the id of a child; `key`: the workflow name of work,
    the key of a signal. `until` is when something happens by itself: a lease lapses, a retry or a timer is due.
    `attempt` counts failures, `delivery` how often work was handed out since its last answer; `status` is a child's. `error`: what
    the last failed attempt of work raised. `beside`: whether work runs beside other work of its process; False: alone.
    """

    kind: ObligationKind
    activity_id: str
    dimension: Dimension
    name: str
    key: str
    since: datetime
    until: datetime | None
    held_by: str | None
    attempt: int
    delivery: int
    status: int | None
    error: str | None = None
    beside: bool | None = None

    @property
    def detail(self) -> str | None:
        """What it is, in short; None where there is no more to say."""
        return f"{self.name} {self.key}" if self.kind == "signal" else self.name or None

    @property
    def due_at(self) -> datetime:
        """`until`, of what always has it: work, messages and timers."""
        return self.until or self.since


async def list_obligations(observer: Observer, generation: str) -> list[Obligation]:
    """What a job still waits for, the oldest first."""
    return [
        Obligation(
            **{
                **row,
                "dimension": tuple(row["dimension"]),
                "error": error_text(row["error"], observer.payload),
            }
        )
        for row in await observer.rows("job_obligations", generation)
    ]


def error_text(stored: str | None, payload: Payload) -> str | None:
    """What the column `last_error` of work says."""
    try:
        return None if stored is None else str(payload.reveal(stored))
    except CodecError:
        return CONCEALED


async def count_open(observer: Observer, app_id: str, key: str) -> int:
    """Unfinished jobs with a job key, and rows that still ask for something to be done for one."""
    return int((await observer.row("count_open", app_id, key))["number"])


async def count_open_of_entity(observer: Observer, app_id: str, entity: str) -> int:
    """The same, of the jobs about an entity."""
    return int((await observer.row("count_open_entity", app_id, entity))["number"])
