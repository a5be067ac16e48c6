"""Try the mapping language by hand: evaluate an expression or a condition against plain data, in the real world."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hotmesh.core.mapping import ENVIRONMENT, Environment, compile_condition, compile_expression
from hotmesh.core.pipe.instant import Date, to_datetime
from hotmesh.core.wire import DEEPEST
from hotmesh.errors import ConfigError, MappingError

__all__ = ["evaluate", "evaluate_condition", "local_zone", "system_environment"]


def evaluate(
    expression: Any, context: Mapping[str, Any] | None = None, *, tz: str | tzinfo | None = None
) -> Any:
    """The value of an expression: path text, `{"@pipe": rows}`, a map tree, or a literal.

    `context` is the root object that paths start from; `tz` the local zone, that of the process by default.
    Returns plain data of its own, with `UNDEFINED` for undefined and aware `datetime` values in UTC for dates; an
    invalid date, or one outside the years 1 to 9999, is a `Date` whose `milliseconds` (or None) tell it. Raises
    MappingError, also for a result of more than 200 levels.

        >>> evaluate({"@pipe": [["{a.output.data.list}", ", "], ["{@array.join}"]]},
        ...          {"a": {"output": {"data": {"list": ["x", "y"]}}}})
        'x, y'
    """
    compiled = compile_expression(expression, deferred=True)
    result = compiled.evaluate(_with_environment(context, tz))
    try:
        return _plain(result)
    except _TooDeepError:
        raise MappingError(
            f"the result is nested too deeply: it has more than {DEEPEST} levels", expression=expression
        ) from None


def evaluate_condition(
    rule: Any, context: Mapping[str, Any] | None = None, code: int = 200, *, tz: str | tzinfo | None = None
) -> bool:
    """Whether a transition with these `conditions` is taken for an event of that code. Raises MappingError.

    >>> rule = {"code": 422, "match": [{"expected": True, "actual": "{a.output.data.retry}"}]}
    >>> evaluate_condition(rule, {"a": {"output": {"data": {"retry": True}}}}, code=422)
    True
    """
    return compile_condition(rule, deferred=True).evaluate(_with_environment(context, tz), code)


def system_environment(tz: str | tzinfo | None = None) -> Environment:
    """The real clock, randomness and zone of this process, for the functions that need them.

    The floor of `{@cron.nextDelay}` is HMSH_FIDELITY_SECONDS, 5 by default.
    """
    zone = local_zone() if tz is None else _zone(tz) if isinstance(tz, str) else tz
    return Environment(now=_now, random=random.random, tz=zone, fidelity=_fidelity())


def local_zone() -> tzinfo:
    """The zone of this process as it is now: that of the variable TZ, else of the system."""
    return _local_zone(os.environ.get("TZ"))


def _with_environment(context: Mapping[str, Any] | None, tz: str | tzinfo | None) -> dict[Any, Any]:
    return {**(context or {}), ENVIRONMENT: system_environment(tz)}


def _now() -> float:
    return time.time_ns() // 1_000_000


def _fidelity() -> float:
    text = os.environ.get("HMSH_FIDELITY_SECONDS", "5")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"HMSH_FIDELITY_SECONDS must be a number of seconds from 0 on, not {text!r}")
    return seconds


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"unknown time zone: {name!r}") from None


@lru_cache(maxsize=16)
def _local_zone(variable: str | None) -> tzinfo:
    name = (variable or "").removeprefix(":") if variable is not None else _system_zone_name()
    if variable == "":
        name = "UTC"
    if name:
        try:
            return ZoneInfo(name.partition("zoneinfo/")[2] or name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    return _ClockZone()


def _system_zone_name() -> str | None:
    link = Path("/etc/localtime")
    target = str(link.resolve()) if link.exists() else ""
    _, found, name = target.rpartition("zoneinfo/")
    return name if found else None


class _ClockZone(tzinfo):
    """The system's own rules, where its zone has no name we know."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else self._there(moment).utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else timedelta()

    def tzname(self, moment: datetime | None) -> str | None:
        return None if moment is None else self._there(moment).tzname()

    def fromutc(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)

    @staticmethod
    def _there(moment: datetime) -> datetime:
        return moment.replace(tzinfo=None).astimezone()


class _TooDeepError(Exception):
    """A value has more than `DEEPEST` levels."""


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy made of plain objects and arrays, so that the caller may change it, with dates as `datetime`."""
    if not isinstance(value, dict | list):
        return to_datetime(value) if isinstance(value, Date) else value
    if depth == DEEPEST:
        raise _TooDeepError
    if isinstance(value, dict):
        return {key: _plain(member, depth + 1) for key, member in value.items()}
    return [_plain(item, depth + 1) for item in value]
