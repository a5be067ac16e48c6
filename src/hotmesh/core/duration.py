"""Durations as users write them: seconds, a timedelta, or text such as `5 minutes`, `30s`, `1h`."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final

from hotmesh.errors import ConfigError

Duration = float | int | str | timedelta

LONGEST_TIME: Final = 100 * 365 * 86_400.0
"""Seconds. What is to be kept or to sleep for longer is cut to this: Postgres can still add it to a date."""

_UNITS = {
    "ms": 0.001, "msec": 0.001, "millisecond": 0.001, "milliseconds": 0.001,
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
    "y": 31557600, "year": 31557600, "years": 31557600,
}  # fmt: skip

_LONGEST_TEXT: Final = 200
"""Characters of a text that may be a duration."""

_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


def seconds(value: Duration, *, name: str = "duration") -> float:
    """The duration in seconds. Raises ConfigError that names the parameter for anything else, and below 0."""
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError(f"{name} must be seconds, a timedelta or text such as '5 minutes', not {value!r}")
    elif isinstance(value, str):
        if len(value) > _LONGEST_TEXT:
            raise ConfigError(
                f"{name} is a text of {len(value):,} characters, which is no duration; write seconds, or text such as '30s'"
            )
        found = _parse(value, name)
    else:
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
    if not math.isfinite(found) or found < 0:
        raise ConfigError(f"{name} must be a finite duration of at least 0, not {value!r}")
    return found


def _parse(text: str, name: str) -> float:
    total, position = 0.0, 0
    while position < len(text):
        part = _PART.match(text, position)
        unit = 1.0 if part is not None and not part[2] else _UNITS.get(part[2].lower()) if part else None
        if part is None or unit is None or part.end() == position:
            raise ConfigError(
                f"{name} {text!r} is not a duration; write seconds, or text such as '30s', '5 minutes'"
            )
        total += float(part[1]) * unit
        position = part.end()
    if not text.strip():
        raise ConfigError(f"{name} is empty; write seconds, or text such as '30s', '5 minutes'")
    return total


def seconds_with_unit(value: Duration, *, name: str = "duration") -> float:
    """As `seconds`; a text that is only a number is refused: some would read it as milliseconds. Raises ConfigError."""
    if isinstance(value, str) and _BARE.fullmatch(value):
        raise ConfigError(
            f"{name} {value!r} has no unit; write {value.strip()} (seconds, a number), or text such as '{value.strip()}s'"
        )
    return seconds(value, name=name)


_BARE: Final = re.compile(r"\s*\d+(?:\.\d+)?\s*")
