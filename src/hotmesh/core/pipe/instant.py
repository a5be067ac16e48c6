"""Dates as values of the mapping language: an instant in milliseconds, maybe invalid, and the zone it is told in.

Python's `datetime` holds the years 1 to 9999 only and has no invalid value, so the language has its own type inside.
Years outside that span are moved by whole 400-year cycles, after which the calendar repeats to the day.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, NamedTuple, final

LATEST: Final = 8_640_000_000_000_000
"""The last instant that a date can hold, in ms after 1970; the first is its negative."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY: Final = 86_400_000
_CYCLE_DAYS: Final = 146_097


@final
class Date:
    """An instant in ms after 1970 (None: invalid), and the zone in which it is written as text.

    Two dates are the same value only if they are the same object.
    """

    __slots__ = ("milliseconds", "zone")

    def __init__(self, milliseconds: float | None, zone: tzinfo = UTC) -> None:
        self.milliseconds = clip(milliseconds)
        self.zone = zone

    def __repr__(self) -> str:
        return f"Date({self})"

    def __str__(self) -> str:
        return "Invalid Date" if self.milliseconds is None else iso_text(self.milliseconds)

    def __copy__(self) -> Date:
        return self

    def __deepcopy__(self, memo: object) -> Date:
        return self


class Parts(NamedTuple):
    """A calendar date and time of day; `month` counts from 0, `weekday` from Sunday = 0."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int
    millisecond: int
    weekday: int


def clip(milliseconds: float | None) -> int | None:
    """Whole ms within the span of dates; None for anything else."""
    if milliseconds is None or not -LATEST <= milliseconds <= LATEST:
        return None
    return int(milliseconds)


def of_datetime(value: datetime) -> Date:
    """The date for a `datetime`; one without a zone is taken as UTC."""
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return Date((aware - _EPOCH) // _MILLISECOND, aware.tzinfo or UTC)


def to_datetime(value: Date) -> datetime | Date:
    """The `datetime` in UTC; an invalid date, or a year that `datetime` cannot hold, stays a `Date`."""
    if value.milliseconds is None:
        return value
    try:
        return _EPOCH + timedelta(milliseconds=value.milliseconds)
    except OverflowError:
        return value


def as_date(value: object) -> Date | None:
    """The value as a date if it is one, else None."""
    if isinstance(value, Date):
        return value
    return of_datetime(value) if isinstance(value, datetime) else None


def parts(milliseconds: int) -> Parts:
    """The calendar parts of a count of ms after 1970, as they stand (no zone)."""
    days, rest = divmod(milliseconds, _DAY)
    cycles, day_in_cycle = divmod(days, _CYCLE_DAYS)
    moved = date.fromordinal(_EPOCH_DAY + day_in_cycle)
    hour, rest = divmod(rest, 3_600_000)
    minute, rest = divmod(rest, 60_000)
    second, millisecond = divmod(rest, 1000)
    weekday = moved.isoweekday() % 7
    year = moved.year + 400 * cycles
    return Parts(year, moved.month - 1, moved.day, hour, minute, second, millisecond, weekday)


def from_parts(
    year: int, month: int, day: int = 1, hour: int = 0, minute: int = 0, second: int = 0, millisecond: int = 0
) -> int:
    """Ms after 1970 of calendar parts (no zone); parts outside their range roll over into the next larger one."""
    years, month = divmod(month, 12)
    cycles, year_in_cycle = divmod(year + years - 1970, 400)
    first = date(1970 + year_in_cycle, month + 1, 1).toordinal() - _EPOCH_DAY + cycles * _CYCLE_DAYS
    return (first + day - 1) * _DAY + hour * 3_600_000 + minute * 60_000 + second * 1000 + millisecond


def offset(milliseconds: int, zone: tzinfo) -> int:
    """What the zone adds to UTC at that instant, in ms."""
    found = _at(milliseconds, zone).utcoffset()
    return 0 if found is None else found // _MILLISECOND


def at(milliseconds: int, zone: tzinfo) -> datetime:
    """That instant as an aware `datetime` in the zone, its year brought into the span of `datetime`."""
    return _at(milliseconds, zone)


def to_local(milliseconds: int, zone: tzinfo) -> int:
    """The wall clock of the zone at that instant, as ms after 1970."""
    return milliseconds + offset(milliseconds, zone)


def from_local(wall: int, zone: tzinfo) -> int:
    """The instant at which the clocks of the zone show that time.

    A time skipped by a clock change uses the offset before the change; of an ambiguous time the first is taken.
    """
    naive = (_EPOCH + timedelta(milliseconds=_within_datetime(wall))).replace(tzinfo=zone, fold=0)
    found = naive.utcoffset()
    return wall - (0 if found is None else found // _MILLISECOND)


def iso_text(milliseconds: int) -> str:
    """`YYYY-MM-DDTHH:mm:ss.sssZ`; a year outside 0 to 9999 has a sign and six digits."""
    found = parts(milliseconds)
    year = f"{found.year:04}" if 0 <= found.year <= 9999 else f"{found.year:+07}"
    day = f"{year}-{found.month + 1:02}-{found.day:02}"
    return f"{day}T{found.hour:02}:{found.minute:02}:{found.second:02}.{found.millisecond:03}Z"


def _at(milliseconds: int, zone: tzinfo) -> datetime:
    return (_EPOCH + timedelta(milliseconds=_within_datetime(milliseconds))).astimezone(zone)


def _within_datetime(milliseconds: int) -> int:
    """The same day and time of the 400-year cycle, in a year that `datetime` can hold.

    The far past lands before the first clock change of any zone, the far future after the last listed one.
    """
    if -62_000_000_000_000 <= milliseconds <= 253_000_000_000_000:
        return milliseconds
    span = _CYCLE_DAYS * _DAY
    return milliseconds % span + (15 if milliseconds > 0 else -4) * span
