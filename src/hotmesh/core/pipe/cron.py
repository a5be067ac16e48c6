"""Cron expressions, in UTC: five fields, or six with seconds first."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from cronsim import CronSim, CronSimError

from hotmesh.core.pipe.function import BadArgumentError, Functions
from hotmesh.core.values import UNDEFINED

if TYPE_CHECKING:
    from hotmesh.core.pipe.environment import Environment

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FARTHEST: Final = 100 * 365 * 86_400_000
"""Milliseconds; so far ahead there are dates."""

_EVERY: Final = re.compile(r"\*/([0-9]+)")


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
        seconds = (next_occurrence(expression, now) - now).total_seconds()
        return math.floor(max(seconds + 0.5, environment.fidelity))
    ahead = timedelta(milliseconds=min(max(after - environment.now(), 0), _FARTHEST))
    return (next_occurrence(expression, now + ahead) - now).total_seconds()


def next_occurrence(expression: str, after: datetime) -> datetime:
    """The first instant strictly after the given one that the cron expression names, in UTC.

    Raises BadArgumentError for an expression that is not valid or can never match.
    """
    fields = NICKNAMES.get(expression.strip(), expression).upper().split()
    if not 5 <= len(fields) <= 6:
        raise BadArgumentError(
            f"is not a cron expression: {expression!r} has {len(fields)} fields, not 5 or 6"
        )
    for index, whole in ((-3, "1-31"), (-1, "0-7")):
        if fields[index] == "?":
            fields[index] = "*"
        elif (step := _EVERY.fullmatch(fields[index])) and int(step[1]) > 1:
            # A step restricts the days; CronSim reads a field that starts with a star as unrestricted.
            fields[index] = f"{whole}/{step[1]}"
    if "W" in fields[-3] or any(
        part.startswith(("L-", "H")) for field in fields for part in field.split(",")
    ):
        raise BadArgumentError(f"is not a cron expression: {expression!r}")
    try:
        return next(CronSim(" ".join(fields), after.astimezone(UTC)))
    except (CronSimError, StopIteration) as error:
        raise BadArgumentError(f"is not a cron expression: {expression!r}: {error}") from None


FUNCTIONS: Final[Functions] = {"nextDelay": next_delay}
