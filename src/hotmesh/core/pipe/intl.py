"""Dates as people write them: locale patterns chosen by the options of Intl.DateTimeFormat, from CLDR through Babel."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from babel.dates import DateTimeFormat, tokenize_pattern

from hotmesh.core.pipe.coercion import is_number, to_boolean, to_integer, to_text
from hotmesh.core.pipe.function import BadArgumentError, kind, short
from hotmesh.core.pipe.instant import at, parts, to_local
from hotmesh.core.pipe.property import has, read
from hotmesh.core.pipe.zone import name_of_zone, offset_name
from hotmesh.core.values import UNDEFINED

What = Literal["date", "time", "both"]

DEFAULT_LOCALE: Final = "en-US"

_TAG: Final = re.compile(
    r"(?P<language>[a-z]{2,3}|[a-z]{5,8})(?:-(?P<script>[a-z]{4}))?(?:-(?P<region>[a-z]{2}|[0-9]{3}))?"
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"
    r"(?P<extensions>(?:-[0-9a-wyz](?:-[a-z0-9]{2,8})+)*)(?:-x(?:-[a-z0-9]{1,8})+)?",
    re.IGNORECASE,
)
_LONGEST_NAME: Final = 200
"""Characters of a name that is looked up, and remembered, and of a language tag."""

_OFFSET: Final = re.compile(r"([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?")
_NUMERIC: Final = ("2-digit", "numeric")
_TEXTUAL: Final = ("narrow", "short", "long")
_STYLES: Final = ("full", "long", "medium", "short")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "localeMatcher": ("lookup", "best fit"),
    "formatMatcher": ("basic", "best fit"),
    "hourCycle": ("h11", "h12", "h23", "h24"),
    "weekday": _TEXTUAL,
    "era": _TEXTUAL,
    "year": _NUMERIC,
    "month": (*_NUMERIC, *_TEXTUAL),
    "day": _NUMERIC,
    "dayPeriod": _TEXTUAL,
    "hour": _NUMERIC,
    "minute": _NUMERIC,
    "second": _NUMERIC,
    "timeZoneName": ("short", "long", "shortOffset", "longOffset", "shortGeneric", "longGeneric"),
    "dateStyle": _STYLES,
    "timeStyle": _STYLES,
}
_DATE_FIELDS: Final = ("era", "year", "month", "weekday", "day")
_TIME_FIELDS: Final = ("dayPeriod", "hour", "minute", "second", "fractionalSecondDigits")
_LETTERS: Final = {"era": "G", "year": "y", "month": "M", "weekday": "E", "day": "d"}
_WIDTHS: Final = {"2-digit": 2, "numeric": 1, "short": 3, "long": 4, "narrow": 5}
_CYCLES: Final = {"h11": "K", "h12": "h", "h23": "H", "h24": "k"}

# How a long date and a time are joined, where it is not by a comma.
_AT: Final = {"en": "{1} 'at' {0}", "de": "{1} 'um' {0}", "fr": "{1} 'à' {0}"}


@dataclass(frozen=True, slots=True)
class _Options:
    """Options that have been checked: the fields asked for, and how."""

    fields: Mapping[str, str]
    fraction: int = 0
    hour12: bool | None = None
    hour_cycle: str | None = None
    date_style: str | None = None
    time_style: str | None = None
    zone_name: str | None = None
    zone: tzinfo | None = None


def format_date(milliseconds: int | None, locale: Any, options: Any, what: str, zone: tzinfo) -> str:
    """The instant (None: invalid) as text of a locale. `what` names the fields that are shown by default.

    Raises BadArgumentError for a malformed locale and for options that are unknown or contradict each other.
    """
    if milliseconds is None:
        return "Invalid Date"
    chosen, cycle = _choose_locale(locale)
    asked = _read_options(options, what)
    asked_cycle = _hour_letter(chosen, asked, cycle)
    pattern = _pattern(chosen, asked, asked_cycle)
    return _Text(milliseconds, asked.zone or zone, chosen, asked).write(pattern).replace("\u202f", " ")


def _choose_locale(value: Any) -> tuple[Locale, str | None]:
    """The first locale asked for that is known, and the hour cycle that its tag asks for."""
    for tag in _tags(value):
        found = _TAG.fullmatch(tag)
        if found is None:
            raise BadArgumentError(f"must be a language tag such as en-US, not {tag!r}", 2)
        locale = _known_locale(found["language"], found["script"], found["region"])
        if locale is not None:
            cycle = re.search(r"-hc-(h11|h12|h23|h24)", found["extensions"] or "", re.IGNORECASE)
            return locale, cycle[1].lower() if cycle else None
    return Locale.parse("en_US"), None


def _tags(value: Any) -> list[str]:
    if value is UNDEFINED:
        return [DEFAULT_LOCALE]
    if value is None:
        raise BadArgumentError("must be a language tag or a list of them, not null", 2)
    tags = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    for tag in tags:
        if not isinstance(tag, str):
            raise BadArgumentError(f"must list language tags, not {kind(tag)}", 2)
        if len(tag) > _LONGEST_NAME or _TAG.fullmatch(tag) is None:
            raise BadArgumentError(f"must be a language tag such as en-US, not {short(tag)}", 2)
    return tags


@lru_cache(maxsize=256)
def _known_locale(language: str, script: str | None, region: str | None) -> Locale | None:
    for attempt in ((script, region), (script, None), (None, region), (None, None)):
        name = "_".join(part for part in (language.lower(), *attempt) if part)
        try:
            return Locale.parse(name)
        except (UnknownLocaleError, ValueError):
            continue
    return None


def _read_options(options: Any, what: str) -> _Options:
    if options is None:
        raise BadArgumentError("must be an object of options, not null", 3)
    given = {name: _choice(options, name, allowed) for name, allowed in _CHOICES.items()}
    fraction = _fraction(options)
    hour12 = read(options, "hour12") if has(options, "hour12") else UNDEFINED
    fields = {
        name: value for name in (*_DATE_FIELDS, *_TIME_FIELDS) if (value := given.get(name)) is not None
    }
    date_style, time_style = given["dateStyle"], given["timeStyle"]
    if date_style or time_style:
        if fields or fraction or given["timeZoneName"]:
            raise BadArgumentError("cannot have dateStyle or timeStyle together with single fields", 3)
        if (date_style and what == "time") or (time_style and what == "date"):
            raise BadArgumentError("has a style for what this function does not write", 3)
    else:
        fields = _with_defaults(fields, fraction, what)
    return _Options(
        fields,
        fraction,
        None if hour12 is UNDEFINED else to_boolean(hour12),
        given["hourCycle"],
        date_style,
        time_style,
        given["timeZoneName"],
        _zone(options),
    )


def _with_defaults(fields: dict[str, str], fraction: int, what: str) -> dict[str, str]:
    asks_date = any(name in fields for name in ("weekday", "year", "month", "day"))
    asks_time = bool(fraction) or any(name in fields for name in _TIME_FIELDS)
    if not (asks_date and what != "time") and not (asks_time and what != "date"):
        if what != "time":
            fields |= {"year": "numeric", "month": "numeric", "day": "numeric"}
        if what != "date":
            fields |= {"hour": "numeric", "minute": "numeric", "second": "numeric"}
    return fields


def _choice(options: Any, name: str, allowed: tuple[str, ...]) -> str | None:
    value = read(options, name)
    if value is UNDEFINED:
        return None
    text = to_text(value)
    if text not in allowed:
        raise BadArgumentError(f"has {name} {text!r}, not one of {', '.join(allowed)}", 3)
    return text


def _fraction(options: Any) -> int:
    value = read(options, "fractionalSecondDigits")
    if value is UNDEFINED:
        return 0
    digits = to_integer(value)
    if not 1 <= digits <= 3:
        raise BadArgumentError(f"has fractionalSecondDigits {to_text(value)}, not 1 to 3", 3)
    return int(digits)


def _zone(options: Any) -> tzinfo | None:
    value = read(options, "timeZone")
    if value is UNDEFINED:
        return None
    name = to_text(value)
    fixed = _OFFSET.fullmatch(name)
    if fixed:
        shift = timedelta(hours=int(fixed[2]), minutes=int(fixed[3] or 0))
        return timezone(-shift if fixed[1] == "-" else shift)
    found = _find_zone(name) if len(name) <= _LONGEST_NAME else None
    if found is None:
        raise BadArgumentError(f"has an unknown timeZone: {short(name)}", 3)
    return found


@lru_cache(maxsize=256)
def _find_zone(name: str) -> tzinfo | None:
    if name.upper() in {"UTC", "GMT", "ETC/UTC", "ETC/GMT"}:
        return ZoneInfo("UTC")
    if not re.fullmatch(r"[A-Za-z0-9_+/-]+", name) or is_number(name):
        return None
    for attempt in (name, name.title().replace("Of_", "of_"), name.upper()):
        try:
            return ZoneInfo(attempt)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return None


def _hour_letter(locale: Locale, asked: _Options, tag_cycle: str | None) -> str:
    """The pattern letter of the hour: of the locale, unless options or tag say otherwise."""
    usual = _usual_hour_letter(locale)
    if asked.hour12 is True:
        return "h" if usual in "hH" else usual
    if asked.hour12 is False:
        return "H" if usual in "HK" else "k"
    cycle = asked.hour_cycle or tag_cycle
    return _CYCLES[cycle] if cycle else usual


def _usual_hour_letter(locale: Locale) -> str:
    pattern = locale.time_formats["short"].pattern
    return next((letter for letter in pattern if letter in "hHKk"), "H")


def _pattern(locale: Locale, asked: _Options, hour: str) -> str:
    if asked.date_style or asked.time_style:
        date = locale.date_formats[asked.date_style].pattern if asked.date_style else ""
        time = _styled_time(locale, asked.time_style, hour) if asked.time_style else ""
        return _joined(locale, date, time, long=asked.date_style in {"full", "long"})
    date = _date_pattern(locale, asked.fields)
    time = _time_pattern(locale, asked, hour)
    if (
        asked.fields.keys() & {*_LETTERS, "hour", "minute"} == {"weekday", "hour", "minute"}
        and not asked.zone_name
    ):
        return f"{date} {time}"
    if asked.zone_name:
        time = f"{time} z".strip()
    return _joined(locale, date, time, long=asked.fields.get("month") == "long")


def _joined(locale: Locale, date: str, time: str, *, long: bool) -> str:
    if not date or not time:
        return date or time
    glue = _AT.get(locale.language) if long else None
    glue = glue or str(locale.datetime_formats["long" if long else "medium"])
    return glue.replace("{1}", date).replace("{0}", time)


def _styled_time(locale: Locale, style: str, hour: str) -> str:
    pattern: str = locale.time_formats[style].pattern
    if hour in pattern:
        return pattern
    skeleton = ("h" if hour in "hK" else "H") + ("m" if style == "short" else "ms")
    zone = {"full": " zzzz", "long": " z"}.get(style, "")
    return _with_hour(_skeletons(locale)[skeleton], hour, 1) + zone


def _date_pattern(locale: Locale, fields: Mapping[str, str]) -> str:
    wanted = [(name, _WIDTHS[fields[name]]) for name in _DATE_FIELDS if name in fields]
    if not wanted:
        return ""
    known = _skeletons(locale)
    found = _matching(known, wanted)
    if found is not None:
        return found
    # No pattern has just these fields: write the closest one, and the others after it.
    for left_out in (["era"], ["weekday"], ["day"], ["era", "weekday"], ["year"], ["month"]):
        rest = [(name, width) for name, width in wanted if name not in left_out]
        found = _matching(known, rest) if rest and len(rest) < len(wanted) else None
        if found is not None:
            others = [_matching(known, [pair]) or "" for pair in wanted if pair[0] in left_out]
            return " ".join([found, *others])
    return " ".join(_matching(known, [pair]) or _LETTERS[pair[0]] * pair[1] for pair in wanted)


def _matching(known: Mapping[str, str], wanted: list[tuple[str, int]]) -> str | None:
    """The pattern with exactly these fields, its widths brought to those asked for."""
    for narrower in (False, True):
        for month in (None, 3, 1):
            skeleton = "".join(
                _skeleton_part(name, width, month, narrower=narrower) for name, width in wanted
            )
            if skeleton in known:
                return _resized(known[skeleton], dict(wanted))
    return None


def _skeleton_part(name: str, width: int, month: int | None, *, narrower: bool) -> str:
    letter = _LETTERS[name]
    if name == "month":
        textual = width > 2
        return letter * (width if month is None else month if textual or month == 1 else 1)
    if name == "weekday":
        return letter * (4 if width == 4 and not narrower else 1)
    return letter * (width if not narrower and width == 2 else 1)


def _resized(pattern: str, widths: Mapping[str, int]) -> str:
    def resize(token: str, width: int) -> int:
        match token:
            case "M" | "L" if "month" in widths:
                return widths["month"] if widths["month"] != 1 else min(width, 2)
            case "E" | "c" if "weekday" in widths:
                return widths["weekday"]
            case "d" if "day" in widths:
                return max(widths["day"], width)
            case "y" if "year" in widths:
                return 2 if widths["year"] == 2 else width
            case "G" if "era" in widths:
                return widths["era"]
            case _:
                return width

    return "".join(
        letter * resize(letter, width) if letter else _quoted(literal)
        for letter, width, literal in _tokens(pattern)
    )


def _time_pattern(locale: Locale, asked: _Options, hour: str) -> str:
    fields = asked.fields
    shown = [name for name in ("hour", "minute", "second") if name in fields]
    if not shown:
        return f"{'S' * asked.fraction}" if asked.fraction else ""
    letter = "h" if hour in "hK" else "H"
    skeleton = "".join({"hour": letter, "minute": "m", "second": "s"}[name] for name in shown)
    known = _skeletons(locale)
    pattern = known.get(skeleton) or (skeleton if len(shown) == 1 else ":".join(skeleton))
    if "dayPeriod" in fields and letter == "h" and "hour" in fields:
        width = {"short": 1, "long": 4, "narrow": 5}[fields["dayPeriod"]]
        pattern = known.get("B" + skeleton, pattern).replace("B", "B" * width)
    if "hour" in fields:
        pattern = _with_hour(pattern, hour, _WIDTHS[fields["hour"]])
    if asked.fraction and "second" in fields:
        point = locale.number_symbols.get("latn", locale.number_symbols).get("decimal", ".")
        digits = f"{_quoted(point)}{'S' * asked.fraction}"
        pattern = (
            pattern.replace("ss", f"ss{digits}") if "ss" in pattern else pattern.replace("s", f"s{digits}")
        )
    return pattern


def _with_hour(pattern: str, hour: str, width: int) -> str:
    return "".join(
        (hour * max(width, count) if letter in "hHKk" else letter * count) if letter else _quoted(literal)
        for letter, count, literal in _tokens(pattern)
    )


def _skeletons(locale: Locale) -> dict[str, str]:
    return {
        str(name): str(getattr(found, "pattern", found)) for name, found in locale.datetime_skeletons.items()
    }


def _tokens(pattern: str) -> Iterator[tuple[str, int, str]]:
    """The pattern piece by piece: letter and width of a field, or literal text after an empty letter."""
    for _, value in tokenize_pattern(pattern):
        if isinstance(value, str):
            yield "", 0, value
        else:
            letter, width = value
            yield letter, width, ""


def _quoted(text: str) -> str:
    """Literal text as it must stand in a pattern."""
    if not re.search("[A-Za-z']", text):
        return text
    return "'" + text.replace("'", "''") + "'"


class _Text:
    """Writes one instant by a pattern."""

    def __init__(self, milliseconds: int, zone: tzinfo, locale: Locale, asked: _Options) -> None:
        self.when = at(milliseconds, zone)
        self.found = parts(to_local(milliseconds, zone))
        self.locale = locale
        self.asked = asked
        # Babel takes the weekday from the year, which may have been moved by whole calendar cycles.
        self.fields = DateTimeFormat(self.when, locale)

    def write(self, pattern: str) -> str:
        return "".join(
            self._field(letter, width) if letter else literal for letter, width, literal in _tokens(pattern)
        )

    def _field(self, letter: str, width: int) -> str:
        match letter:
            case "y":
                year = self.found.year if self.found.year > 0 else 1 - self.found.year
                return f"{year % 100:02}" if width == 2 else str(year).rjust(width, "0")
            case "S":
                return f"{self.found.millisecond:03}"[:width]
            case "z":
                return self._zone(width)
            case _:
                return str(self.fields[letter * width])

    def _zone(self, width: int) -> str:
        style = self.asked.zone_name or ("long" if width == 4 else "short")
        if style in {"shortOffset", "longOffset"}:
            return offset_name(self.when, long=style == "longOffset")
        return name_of_zone(self.when, self.locale, "long" if style.startswith("long") else "short")
