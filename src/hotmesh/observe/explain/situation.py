"""What is known of a job that is to be explained, as one query reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import Struct

from hotmesh.core.state.job import Dimension, RecordState
from hotmesh.core.values import Json
from hotmesh.observe.explain.model import Buried
from hotmesh.observe.jobs import State
from hotmesh.observe.obligations import Obligation


class ServedTopic(Struct, frozen=True):
    """A worker topic and a workflow name of it; who holds such work now, and who other work of the topic."""

    topic: str
    workflow_name: str
    holders: tuple[str, ...]
    others: tuple[str, ...]


class OpenRecord(Struct, frozen=True):
    """A record that is not closed."""

    activity_id: str
    dimension: Dimension
    type: str
    state: RecordState
    started_at: datetime | None


class StoredRate(Struct, frozen=True):
    """A row of throttle that concerns the job. `topic`: empty for all."""

    scope: str
    topic: str
    rate: int


@dataclass(frozen=True, slots=True)
class Situation:
    """A job and what it waits for, at one moment (`now`, by the database's clock).

    Of each kind of obligation, and of all else, only the oldest are here, as many as the query was asked for; `number`
    counts work, messages and children in full. `open`: the state of its joins.
    """

    job_id: str
    version: str
    topic: str
    state: State
    status: int
    error: Json
    open: dict[str, Any] | None
    cancelled: bool
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    expires_at: datetime | None
    now: datetime
    number: int
    obligations: list[Obligation]
    topics: list[ServedTopic]
    records: list[OpenRecord]
    dead_letters: list[Buried]
    rates: list[StoredRate]
    gone: list[str]
    """Members that have died, of those who hold such work."""
    queue: str | None = None
    """Of a durable function, whose name is the topic: where it runs."""
    holder: str | None = None
    """Of a durable function: the member in whose process steps of it run; empty if it is not known any more."""
    recoveries: int = 0
    """Of a durable function: how often in a row it was taken over from a process that had died."""

    @property
    def omitted(self) -> int:
        """Obligations that are not here, because the job has too many."""
        return self.number - sum(one.kind in ("work", "message", "child") for one in self.obligations)

    def paused(self, scope: str, topic: str = "") -> bool:
        """Whether consumers take nothing: the rate of a topic's workers, if it has one, counts alone."""
        rates = {(one.scope, one.topic): one.rate for one in self.rates}
        return rates.get((scope, topic), rates.get((scope, ""), 0)) < 0
