"""When a cron expression comes next, as seconds from now; `core/schedule.py` reads the expression."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hotmesh.core.duration import LONGEST_TIME
from hotmesh.core.pipe.environment import Environment
from hotmesh.core.pipe.function import BadArgumentError, Functions
from hotmesh.core.schedule import next_occurrence
from hotmesh.core.values import UNDEFINED

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FARTHEST: Final = LONGEST_TIME * 1000
"""Milliseconds; so far ahead there are dates."""


def next_delay(environment: Environment, expression: Any = UNDEFINED, after: Any = UNDEFINED) -> float:
    """Seconds until the next occurrence strictly after now, rounded, at least the fidelity floor (5 by default).

    With `after`, in ms after 1970, the exact seconds until the first occurrence that lies after both: a schedule that
    gives its last tick never gets the same one twice. What is not text gives -1; text that is no cron expression is
    an error.

    Example: ("0 13 * * *") → 1503
    Example: ("0 13 * * *", 1709211600000) → 87903.211
    Example: (null) → -1
    """
    if not isinstance(expression, str):
        return -1
    now = _EPOCH + timedelta(milliseconds=environment.now())
    if isinstance(after, bool) or not isinstance(after, int | float) or not math.isfinite(after):
        seconds = (_next_occurrence(expression, now) - now).total_seconds()
        return math.floor(max(seconds + 0.5, environment.fidelity))
    ahead = timedelta(milliseconds=min(max(after - environment.now(), 0), _FARTHEST))
    return (_next_occurrence(expression, now + ahead) - now).total_seconds()


def _next_occurrence(expression: str, after: datetime) -> datetime:
    try:
        return next_occurrence(expression, after)
    except ValueError as error:
        raise BadArgumentError(str(error)) from None


FUNCTIONS: Final[Functions] = {"nextDelay": next_delay}
