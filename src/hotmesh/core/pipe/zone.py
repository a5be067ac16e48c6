"""The names of time zones: Eastern Daylight Time, GMT+2. From CLDR through Babel."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from babel import Locale
from babel.core import get_global

from hotmesh.core.pipe.instant import at

_OTHER_SEASON: Final = timedelta(days=120)
"""From any day of a summer of seven months, it is winter so long before, or so long after."""


def zone_name(milliseconds: int, zone: tzinfo) -> str:
    """The long English name of the zone's time at that instant: Eastern Daylight Time."""
    return name_of_zone(at(milliseconds, zone), Locale.parse("en_US"), "long")


def name_of_zone(when: datetime, locale: Locale, width: str) -> str:
    name = getattr(when.tzinfo, "key", None) or ("UTC" if when.tzinfo is UTC else None)
    if name is not None:
        variant = "daylight" if _is_summer_time(when) else "standard"
        for zone in _zone_spellings(name):
            for names in (
                locale.time_zones.get(zone, {}),
                locale.meta_zones.get(get_global("meta_zones").get(zone), {}),
            ):
                found = names.get(width, {}).get(variant) if width in names else None
                if isinstance(found, str) and found != "∅∅∅":
                    return found
    return offset_name(when, long=width == "long")


def _is_summer_time(when: datetime) -> bool:
    shift = when.dst()
    if shift:
        return shift > timedelta()
    # By Irish law winter is the exception: the shift is none in summer and negative in winter.
    return any(
        (away.dst() or timedelta()) < timedelta() for away in (when - _OTHER_SEASON, when + _OTHER_SEASON)
    )


@lru_cache(maxsize=512)
def _zone_spellings(name: str) -> tuple[str, ...]:
    """The zone's name, and other names of the same zone: locale data lists each zone under one of them."""
    aliases: Mapping[str, str] = get_global("zone_aliases")
    current = aliases.get(name, name)
    others = [alias for alias, target in aliases.items() if target == current]
    if name in {"Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Universal"}:
        others.append("UTC")
    return (name, current, *others, *(["Etc/UTC"] if name == "UTC" else []))


def offset_name(when: datetime, *, long: bool) -> str:
    shift = when.utcoffset() or timedelta()
    minutes = int(shift.total_seconds() / 60)
    if minutes == 0:
        return "GMT"
    hours, minutes = divmod(abs(minutes), 60)
    sign = "-" if shift < timedelta() else "+"
    if long:
        return f"GMT{sign}{hours:02}:{minutes:02}"
    return f"GMT{sign}{hours}" + (f":{minutes:02}" if minutes else "")
