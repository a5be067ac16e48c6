"""Functions on dates. A date is a date value, ms after 1970, or ISO text; months count from 0, weekdays from Sunday."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from hotmesh.core.pipe.coercion import NAN, date_text, day_text, to_number, to_text
from hotmesh.core.pipe.dates import date_argument, parse_date
from hotmesh.core.pipe.environment import Environment
from hotmesh.core.pipe.function import BadArgumentError, Functions
from hotmesh.core.pipe.instant import (
    LATEST,
    Date,
    Parts,
    as_date,
    clip,
    from_local,
    from_parts,
    iso_text,
    offset,
    parts,
    to_local,
)
from hotmesh.core.values import UNDEFINED

INVALID: Final = "Invalid Date"


def from_iso_string(environment: Environment, value: Any = UNDEFINED) -> Date:
    """The date that text or ms after 1970 stand for; an invalid date if they stand for none.

    Example: ("2024-02-29T12:34:56+05:30") → Date 2024-02-29T07:04:56.000Z
    Example: (0) → Date 1970-01-01T00:00:00.000Z
    """
    known = as_date(value)
    if known is not None:
        return Date(known.milliseconds, environment.tz)
    if isinstance(value, str):
        return Date(parse_date(value, environment.tz), environment.tz)
    number = NAN if value is UNDEFINED else to_number(value)
    return Date(number, environment.tz)


def now(environment: Environment) -> int:
    """The current time, in ms after 1970.

    Example: () → 1709210096789
    """
    return math.floor(environment.now())


def yyyymmdd(environment: Environment) -> str:
    """The current day in UTC.

    Example: () → "2024-02-29"
    """
    return iso_text(math.floor(environment.now()))[:10]


def parse(environment: Environment, text: Any = UNDEFINED) -> float:
    """The ms after 1970 that the text stands for; NaN if it stands for none.

    Example: ("2024-02-29") → 1709164800000
    Example: ("garbage") → NaN
    """
    known = as_date(text)
    if known is not None:
        return _or_nan(known.milliseconds)
    if not isinstance(text, str):
        return NAN if text is UNDEFINED or text is None else parse(environment, to_text(text))
    return _or_nan(parse_date(text, environment.tz))


def get_time(environment: Environment, date: Any) -> float:
    """The date in ms after 1970.

    Example: ("2024-02-29T12:34:56.789Z") → 1709210096789
    """
    return _or_nan(date_argument(date, environment.tz))


def value_of(environment: Environment, date: Any) -> float:
    """The date in ms after 1970, as by `getTime`.

    Example: ("2024-02-29T12:34:56.789Z") → 1709210096789
    """
    return _or_nan(date_argument(date, environment.tz))


def get_timezone_offset(environment: Environment, date: Any) -> float:
    """The minutes to add to local time to reach UTC, at that date: 300 for New York in winter, 0 in UTC.

    Example: ("2024-02-29T12:34:56.789Z") → 0
    """
    milliseconds = date_argument(date, environment.tz)
    if milliseconds is None:
        return NAN
    return -int(offset(milliseconds, environment.tz) / 60_000)


def set_time(environment: Environment, date: Any, milliseconds: Any = UNDEFINED) -> float:
    """The given ms after 1970, whole; the date only has to be one.

    Example: ("2024-02-29T12:34:56.789Z", "5") → 5
    """
    date_argument(date, environment.tz)
    return _or_nan(clip(to_number(milliseconds)))


def to_date_string(environment: Environment, date: Any) -> str:
    """The local day.

    Example: ("2024-02-29T12:34:56.789Z") → "Thu Feb 29 2024"
    """
    milliseconds = date_argument(date, environment.tz)
    return INVALID if milliseconds is None else day_text(Date(milliseconds, environment.tz))


def to_iso_string(environment: Environment, date: Any) -> str:
    """The date as ISO text in UTC, with ms; an invalid one is an error.

    Example: ("2024-02-29") → "2024-02-29T00:00:00.000Z"
    """
    milliseconds = date_argument(date, environment.tz)
    if milliseconds is None:
        raise BadArgumentError("is an invalid date")
    return iso_text(milliseconds)


def to_isox_string(environment: Environment, date: Any = UNDEFINED) -> str:
    """The date as compact text in UTC, without signs between its parts; without an argument, now.

    Example: ("2024-02-29T12:34:56.789Z") → "20240229123456.789"
    Example: () → "20240229123456.789"
    """
    if date is UNDEFINED or date is None:
        date = environment.now()
    text = to_iso_string(environment, date)
    return text.replace("-", "").replace(":", "").replace("T", "").replace("Z", "")


def to_json(environment: Environment, date: Any) -> str | None:
    """The date as ISO text in UTC; null for an invalid one.

    Example: ("2024-02-29") → "2024-02-29T00:00:00.000Z"
    Example: ("2023-13-01") → null
    """
    milliseconds = date_argument(date, environment.tz)
    return None if milliseconds is None else iso_text(milliseconds)


def to_locale_date_string(
    environment: Environment, date: Any, locale: Any = UNDEFINED, options: Any = UNDEFINED
) -> str:
    """The day as people of a locale write it; `options` are those of Intl.DateTimeFormat.

    Example: ("2024-02-29T12:34:56.789Z", "en-GB") → "29/02/2024"
    Example: ("2024-02-29", "en-US", {"month": "long", "day": "numeric"}) → "February 29"
    """
    return _localized(environment, date, locale, options, "date")


def to_locale_string(
    environment: Environment, date: Any, locale: Any = UNDEFINED, options: Any = UNDEFINED
) -> str:
    """The day and time as people of a locale write them; `options` are those of Intl.DateTimeFormat.

    Example: ("2024-02-29T12:34:56.789Z", "en-US", {"timeZone": "Asia/Kolkata"}) → "2/29/2024, 6:04:56 PM"
    """
    return _localized(environment, date, locale, options, "both")


def to_locale_time_string(
    environment: Environment, date: Any, locale: Any = UNDEFINED, options: Any = UNDEFINED
) -> str:
    """The time of day as people of a locale write it; `options` are those of Intl.DateTimeFormat.

    Example: ("2024-02-29T12:34:56.789Z", "en-US") → "12:34:56 PM"
    """
    return _localized(environment, date, locale, options, "time")


def to_string(environment: Environment, date: Any) -> str:
    """The local day and time, with the zone.

    Example: (0) → "Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)"
    """
    milliseconds = date_argument(date, environment.tz)
    return INVALID if milliseconds is None else date_text(Date(milliseconds, environment.tz))


def utc(
    year: Any = UNDEFINED,
    month: Any = UNDEFINED,
    day: Any = UNDEFINED,
    hours: Any = UNDEFINED,
    minutes: Any = UNDEFINED,
    seconds: Any = UNDEFINED,
    ms: Any = UNDEFINED,
) -> float:
    """The ms after 1970 of parts in UTC, which may roll over; years 0 to 99 mean 1900 to 1999.

    Example: (2024, 1, 29, 12, 34, 56, 789) → 1709210096789
    Example: (2024, 0) → 1704067200000
    """
    defaults = (NAN, 0, 1, 0, 0, 0, 0)
    given = (year, month, day, hours, minutes, seconds, ms)
    numbers = [
        default if part is UNDEFINED else to_number(part)
        for part, default in zip(given, defaults, strict=True)
    ]
    if not all(map(math.isfinite, numbers)):
        return NAN
    full_year, *rest = map(int, numbers)
    return _or_nan(clip(_instant(1900 + full_year if 0 <= full_year <= 99 else full_year, *rest)))


def _localized(environment: Environment, date: Any, locale: Any, options: Any, what: str) -> str:
    from hotmesh.core.pipe.intl import format_date  # loads locale data: only when a date is written out

    milliseconds = date_argument(date, environment.tz)
    return format_date(milliseconds, locale, options, what, environment.tz)


def _or_nan(milliseconds: int | None) -> float:
    return NAN if milliseconds is None else milliseconds


def _whole(number: float) -> int | None:
    return int(number) if math.isfinite(number) else None


def _instant(year: int, month: int, *rest: int) -> int | None:
    # Parts this far out cannot give a date, whatever the others are, short of absurd compensation.
    if abs(year) > 10 * LATEST or abs(month) > 10 * LATEST:
        return None
    return from_parts(year, month, *rest)


def _getter(read: Callable[[Parts], int], what: str, example: int, *, local: bool) -> Callable[..., float]:
    if local:

        def get(environment: Environment, date: Any) -> float:
            milliseconds = date_argument(date, environment.tz)
            return NAN if milliseconds is None else read(parts(to_local(milliseconds, environment.tz)))
    else:

        def get(environment: Environment, date: Any) -> float:
            milliseconds = date_argument(date, environment.tz)
            return NAN if milliseconds is None else read(parts(milliseconds))

    zone = "in local time" if local else "in UTC"
    get.__doc__ = (
        f"The {what} of the date, {zone}; NaN for an invalid date.\n\n"
        f'Example: ("2024-02-29T12:34:56.789Z") → {example}'
    )
    return get


_FIELDS: Final = ("year", "month", "day", "hour", "minute", "second", "millisecond")


def _setter(first: str, names: str, example: str, *, local: bool, last: str = "") -> Callable[..., float]:
    """A function that replaces the parts from `first` on, one for each argument up to `last`."""
    start = _FIELDS.index(first)
    count = _FIELDS.index(last or first) - start + 1

    def replaced(environment: Environment, date: Any, given: tuple[Any, ...]) -> float:
        milliseconds = date_argument(date, environment.tz)
        if milliseconds is None:
            return NAN
        now = list(parts(to_local(milliseconds, environment.tz) if local else milliseconds)[:7])
        for index, value in enumerate(given):
            if value is UNDEFINED and index > 0:
                continue
            whole = _whole(to_number(value))
            if whole is None:
                return NAN
            now[start + index] = whole
        found = _instant(*now)
        if found is not None and local:
            found = from_local(found, environment.tz)
        return _or_nan(clip(found))

    def one(environment: Environment, date: Any, a: Any = UNDEFINED) -> float:
        return replaced(environment, date, (a,))

    def two(environment: Environment, date: Any, a: Any = UNDEFINED, b: Any = UNDEFINED) -> float:
        return replaced(environment, date, (a, b))

    def three(
        environment: Environment, date: Any, a: Any = UNDEFINED, b: Any = UNDEFINED, c: Any = UNDEFINED
    ) -> float:
        return replaced(environment, date, (a, b, c))

    def four(
        environment: Environment,
        date: Any,
        a: Any = UNDEFINED,
        b: Any = UNDEFINED,
        c: Any = UNDEFINED,
        d: Any = UNDEFINED,
    ) -> float:
        return replaced(environment, date, (a, b, c, d))

    function: Callable[..., float] = (one, two, three, four)[count - 1]
    zone = "in local time" if local else "in UTC"
    function.__doc__ = (
        f"The date with {names} replaced, {zone}, in ms after 1970.\n\n"
        "Parts that are not given stay; those out of range roll over. NaN for an invalid date or part.\n\n"
        f"Example: {example}"
    )
    return function


def _getters(
    name: str, read: Callable[[Parts], int], what: str, example: int
) -> dict[str, Callable[..., float]]:
    return {
        f"get{name}": _getter(read, what, example, local=True),
        f"getUTC{name}": _getter(read, what, example, local=False),
    }


def _setters(name: str, first: str, last: str, names: str, example: str) -> dict[str, Callable[..., float]]:
    return {
        f"set{name}": _setter(first, names, example, local=True, last=last),
        f"setUTC{name}": _setter(first, names, example, local=False, last=last),
    }


FUNCTIONS: Final[Functions] = {
    "fromISOString": from_iso_string,
    "now": now,
    "yyyymmdd": yyyymmdd,
    "parse": parse,
    **_getters("Date", lambda found: found.day, "day of the month (1 to 31)", 29),
    **_getters("Day", lambda found: found.weekday, "day of the week (0 to 6, Sunday is 0)", 4),
    **_getters("FullYear", lambda found: found.year, "year", 2024),
    **_getters("Hours", lambda found: found.hour, "hour (0 to 23)", 12),
    **_getters("Milliseconds", lambda found: found.millisecond, "ms within the second (0 to 999)", 789),
    **_getters("Minutes", lambda found: found.minute, "minute (0 to 59)", 34),
    **_getters("Month", lambda found: found.month, "month (0 to 11, January is 0)", 1),
    **_getters("Seconds", lambda found: found.second, "second (0 to 59)", 56),
    "getTime": get_time,
    "getTimezoneOffset": get_timezone_offset,
    **_setters(
        "Milliseconds", "millisecond", "", "the ms", '("2024-02-29T12:34:56.789Z", 5) → 1709210096005'
    ),
    **_setters(
        "Minutes",
        "minute",
        "millisecond",
        "minute and, if given, second and ms",
        '("2024-02-29T12:34:56.789Z", 5, 6, 7) → 1709208306007',
    ),
    **_setters(
        "Month",
        "month",
        "day",
        "month (0 to 11) and, if given, day",
        '("2024-02-29T12:34:56.789Z", 0, 31) → 1706704496789',
    ),
    **_setters(
        "Seconds",
        "second",
        "millisecond",
        "second and, if given, ms",
        '("2024-02-29T12:34:56.789Z", 61, 1) → 1709210101001',
    ),
    "setTime": set_time,
    **_setters("Date", "day", "", "the day of the month", '("2024-02-29T12:34:56.789Z", 0) → 1706704496789'),
    **_setters(
        "FullYear",
        "year",
        "day",
        "year and, if given, month and day",
        '("2024-02-29T12:34:56.789Z", 2023, 1, 28) → 1677587696789',
    ),
    **_setters(
        "Hours",
        "hour",
        "millisecond",
        "hour and, if given, minute, second and ms",
        '("2024-02-29T12:34:56.789Z", 24, 0, 0, 0) → 1709251200000',
    ),
    "toDateString": to_date_string,
    "toISOString": to_iso_string,
    "toISOXString": to_isox_string,
    "toJSON": to_json,
    "toLocaleDateString": to_locale_date_string,
    "toLocaleString": to_locale_string,
    "toLocaleTimeString": to_locale_time_string,
    "toString": to_string,
    "UTC": utc,
    "valueOf": value_of,
}
