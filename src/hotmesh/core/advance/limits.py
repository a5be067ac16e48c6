"""Settings that bound a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from hotmesh.core.state.span import TraceMode

STEP_LIMIT: Final = 1_000
"""Activities that one step runs; what is left then goes on in a message, so that no step is unbounded."""

SEEN_LIMIT: Final = 1_000
"""Answers that an activity which takes more of them remembers by their ids: a later one of these is a repetition."""

DEFAULT_EXPIRE: Final = 1.0
DEFAULT_MAX_CYCLES: Final = 10_000
DEFAULT_MAX_PAYLOAD: Final = 1_048_576


def never() -> bool:
    """The time that a step takes does not matter."""
    return False


class Limits(Struct, frozen=True):
    """What one step may do, and what holds where the graph says nothing."""

    activities: int = STEP_LIMIT
    seen: int = SEEN_LIMIT
    max_cycles: int = DEFAULT_MAX_CYCLES
    expire: float = DEFAULT_EXPIRE
    """Seconds to keep a job that has ended."""
    enough: Callable[[], bool] = never
    """Whether the step has taken so long that what is left of it is for another one."""
    max_payload: int = DEFAULT_MAX_PAYLOAD
    """Bytes of JSON that a mapping may make for one thing: an input, a signal, what an activity writes to its job."""
    trace: TraceMode | None = None
    """Which spans are told of jobs that have a trace; None: none."""


DEFAULT_LIMITS: Final = Limits()
