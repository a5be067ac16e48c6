"""When something that repeats comes next: a cron expression or an interval, as users write them. In UTC.

`read_rhythm` reads what was written, `next_occurrence` gives the moments that a cron expression names. `Virtual.cron` and
`{@cron.nextDelay}` mean the same by an expression because both ask here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cronsim import CronSim, CronSimError

from hotmesh.core.duration import Duration, seconds
from hotmesh.errors import ConfigError

SHORTEST_INTERVAL: Final = 1.0
"""Seconds between two runs."""

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_LONGEST_CRON: Final = 1_000
"""Characters of a cron expression: all minutes and all hours, written out, are less than 300."""

_FIELD: Final = re.compile(r"[\d*/,\-]+\Z")
_EVERY: Final = re.compile(r"\*/([0-9]+)")
_ANY_DAY: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""An expression that matches within fifty years of one day does so from any other."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """A cron expression, or the seconds between two runs; `first`: seconds before the first run, None: a tick."""

    cron: str | None
    interval: float | None
    first: float | None


def read_rhythm(interval: Duration, delay: Duration | None = None) -> Rhythm:
    """What `interval` and `delay` of a schedule mean. Raises ConfigError.

    Five fields are a cron expression in UTC: numbers, ranges, lists and steps. Anything else is a duration. A
    schedule with an interval runs at once, one with a cron expression at its first tick, unless there is a `delay`.
    """
    first = None if delay is None else seconds(delay, name="delay")
    if isinstance(interval, str) and is_cron(interval):
        return Rhythm(interval.strip(), None, first)
    try:
        between = seconds(interval, name="interval")
    except ConfigError as error:
        raise ConfigError(f"Invalid cron/interval expression: {interval}{_why(interval)}") from error
    if between < SHORTEST_INTERVAL:
        raise ConfigError(
            f"Invalid cron/interval expression: {interval}; "
            f"an interval has at least {SHORTEST_INTERVAL:g} second"
        )
    return Rhythm(None, between, 0.0 if first is None else first)


def is_cron(expression: str) -> bool:
    """Whether it is a cron expression of five fields of numbers, ranges, lists and steps, that can ever match."""
    fields = expression.split() if len(expression) <= _LONGEST_CRON else []
    if len(fields) != 5 or not all(map(_FIELD.match, fields)):
        return False
    try:
        next_occurrence(expression, _ANY_DAY)
    except ValueError:
        return False
    return True


def next_occurrence(expression: str, after: datetime) -> datetime:
    """The first instant strictly after the given one that the cron expression names, in UTC.

    Five fields, or six with seconds first, or a nickname. Raises ValueError, which says so, for an expression that
    is not valid or can never match.
    """
    if len(expression) > _LONGEST_CRON:
        raise ValueError(
            f"is not a cron expression: it has {len(expression):,} characters, at most {_LONGEST_CRON:,} make sense"
        )
    fields = NICKNAMES.get(expression.strip(), expression).upper().split()
    if not 5 <= len(fields) <= 6:
        raise ValueError(f"is not a cron expression: {expression!r} has {len(fields)} fields, not 5 or 6")
    for index, whole in ((-3, "1-31"), (-1, "0-7")):
        if fields[index] == "?":
            fields[index] = "*"
        elif (step := _EVERY.fullmatch(fields[index])) and int(step[1]) > 1:
            # A step restricts the days; CronSim reads a field that starts with a star as unrestricted.
            fields[index] = f"{whole}/{step[1]}"
    if "W" in fields[-3] or any(
        part.startswith(("L-", "H")) for field in fields for part in field.split(",")
    ):
        raise ValueError(f"is not a cron expression: {expression!r}")
    try:
        return next(CronSim(" ".join(fields), after.astimezone(UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"is not a cron expression: {expression!r}: {error}") from None


_FIELDS: Final = (
    ("minute", "0–59"), ("hour", "0–23"), ("day of the month", "1–31"), ("month", "1–12"), ("weekday", "0–7"),
)  # fmt: skip


def _why(interval: object) -> str:
    """What is wrong with a text that was meant for a cron expression, or for a duration."""
    fields = interval.split() if isinstance(interval, str) else []
    if len(fields) == len(_FIELDS):
        for number, (field, (name, values)) in enumerate(zip(fields, _FIELDS, strict=True), 1):
            rest = ["*"] * len(fields)
            rest[number - 1] = field
            if not is_cron(" ".join(rest)):
                return (
                    f": field {number} ({name}), {field!r}, takes {values}, lists, ranges and steps, no names"
                )
        return ": no day is like that"
    return (
        ": it is five fields (minute, hour, day, month, weekday, in UTC), or a duration such as '5 minutes'"
    )
