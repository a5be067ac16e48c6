"""Spans as data, and how their ids follow from the activity instance they speak of; `trace.py` collects them."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Final, Literal

from msgspec import Struct

from hotmesh.core.state.job import Dimension

TraceMode = Literal["info", "debug"]
"""Which spans are told: those of jobs, triggers, workers and `telemetry` blocks, or of every activity and message."""

UNSAMPLED: Final = "0000000000000000"
"""The span id of a job whose trace is not sampled: nobody records spans for it."""

Scalar = str | bool | int | float
"""What an attribute of a span may be."""


class Span(Struct, frozen=True, gc=False):
    """One span; it ends with the commit of its step, and began with the step unless `started_at` is earlier."""

    name: str
    generation: str
    trace_id: str
    span_id: str
    parent_id: str | None
    started_at: datetime
    attributes: dict[str, Scalar]
    error: str | None = None


def span_id(generation: str, activity_id: str, dimension: Dimension, leg: str) -> str:
    """The id of the span of an activity's leg, 16 hexadecimal digits."""
    place = f"{generation}/{activity_id}/{'.'.join(map(str, dimension))}/{leg}"
    return blake2b(place.encode(), digest_size=8).hexdigest()


def job_span_id(generation: str) -> str:
    """The id of a job's first span."""
    return span_id(generation, "", (), "job")
