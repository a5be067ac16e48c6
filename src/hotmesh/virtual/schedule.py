"""When a schedule runs: a cron expression or an interval, as users write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from hotmesh.core.duration import Duration, seconds
from hotmesh.core.pipe.cron import next_occurrence
from hotmesh.core.pipe.function import BadArgumentError
from hotmesh.errors import ConfigError

SHORTEST: Final = 1.0
"""Seconds that an interval has at least."""

MAX_CYCLES: Final = 100_000
"""Runs of a schedule that does not say how many."""

_FIELD: Final = re.compile(r"[\d*/,\-]+\Z")


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
        raise ConfigError(f"Invalid cron/interval expression: {interval}") from error
    if between < SHORTEST:
        raise ConfigError(
            f"Invalid cron/interval expression: {interval}; an interval has at least {SHORTEST:g} second"
        )
    return Rhythm(None, between, 0.0 if first is None else first)


def is_cron(expression: str) -> bool:
    """Whether it is a cron expression of five fields of numbers, ranges, lists and steps, that can ever match."""
    fields = expression.split()
    if len(fields) != 5 or not all(map(_FIELD.match, fields)):
        return False
    try:
        next_occurrence(expression, datetime.now(UTC))
    except BadArgumentError:
        return False
    return True
