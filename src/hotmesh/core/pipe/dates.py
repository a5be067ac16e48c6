"""Which instant an argument or a text means."""

from __future__ import annotations

import re
from datetime import tzinfo
from typing import Any, Final

from hotmesh.core.pipe.coercion import is_number, to_number
from hotmesh.core.pipe.function import BadArgumentError, kind
from hotmesh.core.pipe.instant import as_date, clip, from_local, from_parts

LONGEST_DATE: Final = 200
"""Characters of a text that may be a date. What reads them looks at some characters again and again."""

_STRICT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{3})?Z)?")
_GMT: Final = re.compile(r"\b(?:GMT|UTC)([+-][0-9]{4})\b")
_COMMENT: Final = re.compile(r"\s*\([^()]*\)")
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_ISO: Final = re.compile(
    r"(?P<year>[0-9]{4}|[+-][0-9]{6})(?:-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2}))?)?"
    r"(?:[Tt ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]+))?)?"
    r"(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)


def date_argument(value: Any, zone: tzinfo) -> int | None:
    """The instant that a date argument means, in ms after 1970; None for an invalid date.

    Raises BadArgumentError for what can be no date at all.
    """
    date = as_date(value)
    if date is not None:
        return date.milliseconds
    if is_number(value):
        return clip(to_number(value))
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return clip(float(value))
        if len(value) > LONGEST_DATE:
            raise BadArgumentError(
                f"Invalid date format: a date has at most {LONGEST_DATE} characters, not {len(value):,}"
            )
        found = parse_date(value, zone)
        if found is None and not _STRICT.fullmatch(value):
            raise BadArgumentError(f"Invalid date format: {value!r}")
        return found
    raise BadArgumentError(f"Invalid date format: must be a date, ms or ISO text, not {kind(value)}")


def parse_date(text: str, zone: tzinfo) -> int | None:
    """The instant that a text means: ISO text, with local time where it has no zone, or RFC 2822; None for none."""
    if len(text) > LONGEST_DATE:
        return None
    found = _ISO.fullmatch(text)
    if found is None:
        return _parse_mail_date(text, zone)
    if found["year"] == "-000000":
        return None
    names = ("month", "day", "hour", "minute", "second")
    month, day, hour, minute, second = (
        int(found[name]) if found[name] else default
        for name, default in zip(names, (1, 1, 0, 0, 0), strict=True)
    )
    millisecond = int(((found["fraction"] or "") + "000")[:3])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 24 and minute <= 59 and second <= 59):
        return None
    if hour == 24 and (minute or second or millisecond):
        return None
    wall = from_parts(int(found["year"]), month - 1, day, hour, minute, second, millisecond)
    if found["zone"]:
        return _minus_zone(wall, found["zone"])
    return clip(wall if found["hour"] is None else from_local(wall, zone))


def _minus_zone(wall: int, zone: str) -> int | None:
    if zone in {"Z", "z"}:
        return clip(wall)
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 23 or minutes > 59:
        return None
    minutes = hours * 60 + minutes
    return clip(wall - (-minutes if zone[0] == "-" else minutes) * 60_000)


def _parse_mail_date(text: str, zone: tzinfo) -> int | None:
    if not re.search(r"[A-Za-z]{3}", text) or not re.search(r"[0-9]{4}", text):
        return None
    # Few mappings read such dates, and the parser of mail takes as much memory as the whole of this package's core.
    from email.utils import parsedate_tz

    try:
        # The text of a date ends in `GMT+0530 (India Standard Time)`, which is no form of RFC 2822.
        found = parsedate_tz(_COMMENT.sub("", _GMT.sub(r"\1", text)))
    except (ValueError, IndexError, TypeError):
        return None
    if found is None:
        return None
    year, month, day, hour, minute, second, *_, shift = found
    if not (1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 59):
        return None
    wall = from_parts(year, month - 1, day, hour, minute, second)
    return clip(from_local(wall, zone) if shift is None else wall - shift * 1000)
