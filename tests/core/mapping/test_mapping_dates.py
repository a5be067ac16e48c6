"""Dates, zones, locale text and cron expressions."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from language import call, resolve

from hotmesh.core.mapping import compile_expression, to_json_value, to_text
from hotmesh.core.pipe.instant import Date
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

D1 = "2024-02-29T12:34:56.789Z"
NEW_YORK = "America/New_York"


def ms(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        # parts left out keep what the date has
        ("setMinutes", [D1, 5], "2024-02-29T12:05:56.789"),
        ("setMinutes", [D1, 5, UNDEFINED, 7], "2024-02-29T12:05:56.007"),
        ("setUTCMonth", [D1, 0], "2024-01-29T12:34:56.789"),
        ("setSeconds", [D1, 9], "2024-02-29T12:34:09.789"),
        ("setUTCFullYear", [D1, 2025], "2025-03-01T12:34:56.789"),
        ("setHours", [D1, 1, 2], "2024-02-29T01:02:56.789"),
        ("setUTCHours", [D1, -1], "2024-02-28T23:34:56.789"),
        ("setUTCDate", [D1, "31"], "2024-03-02T12:34:56.789"),
        ("setMilliseconds", [D1, None], "2024-02-29T12:34:56.000"),
        ("setUTCMonth", [D1, -14, 1], "2022-11-01T12:34:56.789"),
        ("UTC", [2024], "2024-01-01T00:00:00"),
        ("UTC", [2024, 5], "2024-06-01T00:00:00"),
        ("UTC", [0, 0], "1900-01-01T00:00:00"),
        ("UTC", [2024, 1, 30.9, UNDEFINED, 61], "2024-03-01T01:01:00"),
        # what a date argument may be
        ("getTime", ["2023-04-23T12:34:56+02:00"], "2023-04-23T10:34:56"),
        ("getTime", ["2024-02-29T12:34:56.7Z"], "2024-02-29T12:34:56.700"),
        ("getTime", [datetime(2024, 2, 29, 12, tzinfo=UTC)], "2024-02-29T12:00:00"),
        ("parse", ["2024-02-29T24:00:00Z"], "2024-03-01T00:00:00"),
        ("parse", ["2024-02-29T12:34Z"], "2024-02-29T12:34:00"),
        ("parse", ["2024-02-29T12:34:56.123999Z"], "2024-02-29T12:34:56.123"),
        ("parse", ["+002024-02-29T00:00:00Z"], "2024-02-29T00:00:00"),
        ("parse", ["Tue, 19 Jan 2038 03:14:07 +0100"], "2038-01-19T02:14:07"),
        ("parse", ["Thu Feb 29 2024 12:34:56 GMT+0530 (India Standard Time)"], "2024-02-29T07:04:56"),
        ("parse", ["2024-02-29 12:34:56"], "2024-02-29T12:34:56"),
    ],
)
def test_instants(function: str, arguments: list[Any], expected: str) -> None:
    assert call(f"date.{function}", arguments) == pytest.approx(ms(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("getTime", ["-86400000"], -86400000),
        ("getTime", ["2024"], 2024),
        ("getTime", [8.64e15], 8640000000000000),
        ("getUTCFullYear", [8.64e15], 275760),
        ("getUTCFullYear", [-8.64e15], -271821),
        ("getUTCDay", [-8.64e15], 2),
        ("setUTCFullYear", [0, -1], -62198755200000),
        ("setUTCFullYear", [0, 12345], 327403382400000),
        ("toISOString", [-62198755200000], "-000001-01-01T00:00:00.000Z"),
        ("toISOXString", [0], "19700101000000.000"),
        ("toISOXString", [None], "20240229123456.789"),
        ("now", ["ignored"], 1709210096789),
        ("yyyymmdd", [5], "2024-02-29"),
        ("toJSON", [math.nan], None),
        ("toLocaleString", [math.nan, "not_a_locale"], "Invalid Date"),
        ("toDateString", [-62198755200000], "Fri Jan 01 -0001"),
    ],
)
def test_results(function: str, arguments: list[Any], expected: Any) -> None:
    assert call(f"date.{function}", arguments) == expected


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("getTime", [8.64e15 + 1]),
        ("getHours", ["2024-01-01T25:00:00Z"]),
        ("getHours", ["2024-01-32"]),
        ("parse", ["2024-1-1"]),
        ("parse", ["12 o'clock in 1999"]),
        ("parse", [UNDEFINED]),
        ("parse", ["-000000-01-01"]),
        ("setUTCDate", [D1]),
        ("setUTCFullYear", ["2023-13-01", 2024, 0, 1]),
        ("setTime", [D1, "x"]),
        ("getTime", ["9" * 5000]),
        ("UTC", []),
        ("UTC", [2024, "x"]),
        ("UTC", [2024, math.inf]),
        ("UTC", [1e300, -1e300]),
    ],
)
def test_nan(function: str, arguments: list[Any]) -> None:
    result = call(f"date.{function}", arguments)

    assert isinstance(result, float)
    assert math.isnan(result)


@pytest.mark.parametrize("argument", ["", "tomorrow", None, UNDEFINED, True, [], {}, "2024-02-30x", "1.5"])
def test_what_is_no_date_is_refused(argument: Any) -> None:
    with pytest.raises(MappingError, match=r"Invalid date format|needs at least"):
        call("date.getTime", [argument])


def test_local_time_follows_the_zone() -> None:
    assert call("date.getHours", [D1], tz="Asia/Kolkata") == 18
    assert call("date.getTimezoneOffset", [0], tz="Asia/Kolkata") == -330
    # Skipped by a clock change: the offset before it. Ambiguous: the first of the two.
    assert call("date.parse", ["2024-03-10T02:30:00"], tz=NEW_YORK) == ms("2024-03-10T07:30:00")
    assert call("date.parse", ["2024-11-03T01:30:00"], tz=NEW_YORK) == ms("2024-11-03T05:30:00")
    assert call("date.getTimezoneOffset", [-5e12], tz=NEW_YORK) == 296
    assert call("date.setMinutes", [-8.64e15, 5], tz=NEW_YORK) == -8639999999880000
    assert call("date.getHours", [5e14], tz=NEW_YORK) in {16, 17, 18, 19, 20}


def test_a_date_becomes_text_in_the_zone_it_was_made_in() -> None:
    date = call("date.fromISOString", ["2024-07-01T12:00:00Z"], tz=NEW_YORK)

    assert isinstance(date, Date)
    assert to_text(date) == "Mon Jul 01 2024 08:00:00 GMT-0400 (Eastern Daylight Time)"
    assert to_json_value(date) == "2024-07-01T12:00:00.000Z"


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("Asia/Kolkata", "GMT+0530 (India Standard Time)"),
        ("Europe/London", "GMT+0000 (Greenwich Mean Time)"),
        ("UTC", "GMT+0000 (Coordinated Universal Time)"),
        ("Etc/UTC", "GMT+0000 (Coordinated Universal Time)"),
        ("Asia/Tokyo", "GMT+0900 (Japan Standard Time)"),
        ("Europe/Berlin", "GMT+0100 (Central European Standard Time)"),
        ("Europe/Dublin", "GMT+0000 (Greenwich Mean Time)"),
        ("Etc/GMT-5", "GMT+0500 (GMT+05:00)"),  # one that has no name
    ],
)
def test_zone_names(zone: str, expected: str) -> None:
    assert call("date.toString", [D1], tz=zone).endswith(expected)


@pytest.mark.parametrize("day", ["2024-04-01", "2024-07-12", "2024-10-26"])
def test_zone_names_in_summer(day: str) -> None:
    for zone, expected in (
        ("Europe/Berlin", "GMT+0200 (Central European Summer Time)"),
        ("Europe/Dublin", "GMT+0100 (Irish Standard Time)"),
    ):
        assert call("date.toString", [day], tz=zone).endswith(expected)


SHOWN = "2024-02-09T15:04:05.678Z"


@pytest.mark.parametrize(
    ("function", "options", "expected"),
    [
        ("toLocaleDateString", {"year": "numeric", "month": "long", "day": "numeric"}, "February 9, 2024"),
        ("toLocaleDateString", {"year": "numeric", "month": "short", "day": "numeric"}, "Feb 9, 2024"),
        ("toLocaleDateString", {"year": "2-digit", "month": "2-digit", "day": "2-digit"}, "02/09/24"),
        ("toLocaleDateString", {"weekday": "short"}, "Fri"),
        (
            "toLocaleDateString",
            {"weekday": "long", "month": "long", "day": "numeric", "year": "numeric"},
            "Friday, February 9, 2024",
        ),
        ("toLocaleDateString", {"month": "long", "year": "numeric"}, "February 2024"),
        ("toLocaleDateString", {"month": "short", "day": "numeric"}, "Feb 9"),
        ("toLocaleDateString", {"month": "long"}, "February"),
        ("toLocaleDateString", {"year": "numeric"}, "2024"),
        ("toLocaleDateString", {"day": "numeric"}, "9"),
        ("toLocaleDateString", {"month": "narrow"}, "F"),
        ("toLocaleDateString", {"timeZoneName": "short"}, "2/9/2024, UTC"),
        ("toLocaleDateString", {"hour": "numeric"}, "2/9/2024, 3 PM"),
        ("toLocaleTimeString", {"hour": "numeric"}, "3 PM"),
        ("toLocaleTimeString", {"hour": "2-digit", "minute": "2-digit"}, "03:04 PM"),
        (
            "toLocaleTimeString",
            {"hour": "numeric", "minute": "2-digit", "second": "2-digit", "hour12": False},
            "15:04:05",
        ),
        ("toLocaleTimeString", {"hour12": False}, "15:04:05"),
        ("toLocaleTimeString", {"hourCycle": "h23"}, "15:04:05"),
        ("toLocaleTimeString", {"timeZoneName": "short"}, "3:04:05 PM UTC"),
        ("toLocaleTimeString", {"timeZone": NEW_YORK, "timeZoneName": "short"}, "10:04:05 AM EST"),
        (
            "toLocaleTimeString",
            {"fractionalSecondDigits": 3, "hour": "numeric", "minute": "numeric", "second": "numeric"},
            "3:04:05.678 PM",
        ),
        ("toLocaleTimeString", {"minute": "2-digit", "second": "2-digit"}, "04:05"),
        ("toLocaleString", {"dateStyle": "short"}, "2/9/24"),
        ("toLocaleString", {"dateStyle": "medium"}, "Feb 9, 2024"),
        ("toLocaleString", {"dateStyle": "long"}, "February 9, 2024"),
        ("toLocaleString", {"dateStyle": "full"}, "Friday, February 9, 2024"),
        ("toLocaleString", {"timeStyle": "short"}, "3:04 PM"),
        ("toLocaleString", {"timeStyle": "medium"}, "3:04:05 PM"),
        ("toLocaleString", {"timeStyle": "short", "hour12": False}, "15:04"),
        ("toLocaleString", {"dateStyle": "medium", "timeStyle": "short"}, "Feb 9, 2024, 3:04 PM"),
        ("toLocaleString", {"dateStyle": "long", "timeStyle": "short"}, "February 9, 2024 at 3:04 PM"),
        ("toLocaleString", {"dateStyle": "short", "timeStyle": "medium"}, "2/9/24, 3:04:05 PM"),
        ("toLocaleString", {"hour12": False}, "2/9/2024, 15:04:05"),
        (
            "toLocaleString",
            {"month": "short", "day": "numeric", "hour": "numeric", "minute": "2-digit"},
            "Feb 9, 3:04 PM",
        ),
        ("toLocaleString", {"weekday": "long"}, "Friday"),
        ("toLocaleString", {"weekday": "short", "hour": "numeric", "minute": "2-digit"}, "Fri 3:04 PM"),
        ("toLocaleString", {"timeZone": "UTC", "timeZoneName": "short"}, "2/9/2024, 3:04:05 PM UTC"),
        (
            "toLocaleString",
            {"timeZone": "Asia/Kolkata", "timeZoneName": "short"},
            "2/9/2024, 8:34:05 PM GMT+5:30",
        ),
    ],
)
def test_locale_options(function: str, options: dict[str, Any], expected: str) -> None:
    assert call(f"date.{function}", [SHOWN, "en-US", options]) == expected


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("en-US", ["2/9/2024", "3:04:05 PM", "2/9/2024, 3:04:05 PM"]),
        ("en-GB", ["09/02/2024", "15:04:05", "09/02/2024, 15:04:05"]),
        ("de-DE", ["9.2.2024", "15:04:05", "9.2.2024, 15:04:05"]),
        ("xx-XX", ["2/9/2024", "3:04:05 PM", "2/9/2024, 3:04:05 PM"]),
        (["qq", "de-DE", "en-GB"], ["9.2.2024", "15:04:05", "9.2.2024, 15:04:05"]),
        ([], ["2/9/2024", "3:04:05 PM", "2/9/2024, 3:04:05 PM"]),
    ],
)
def test_locale_defaults(locale: Any, expected: list[str]) -> None:
    functions = ("toLocaleDateString", "toLocaleTimeString", "toLocaleString")

    assert [call(f"date.{name}", [SHOWN, locale]) for name in functions] == expected


def test_midnight_is_hour_24_or_00() -> None:
    midnight = "2024-02-09T00:00:00Z"

    assert call("date.toLocaleTimeString", [midnight, "en-US", {"hour12": False}]) == "24:00:00"
    assert call("date.toLocaleTimeString", [midnight, "en-US", {"hourCycle": "h23"}]) == "00:00:00"
    assert call("date.toLocaleTimeString", [midnight, "en-GB", {"hour12": False}]) == "00:00:00"


@pytest.mark.parametrize(
    ("function", "locale", "options"),
    [
        ("toLocaleString", "", UNDEFINED),
        ("toLocaleString", "en_US", UNDEFINED),
        ("toLocaleString", None, UNDEFINED),
        ("toLocaleString", [5], UNDEFINED),
        ("toLocaleString", "en-US", None),
        ("toLocaleString", "en-US", {"month": "big"}),
        ("toLocaleString", "en-US", {"timeZone": "Mars/Base"}),
        ("toLocaleString", "en-US", {"timeZone": "../etc/passwd"}),
        ("toLocaleString", "en-US", {"dateStyle": "short", "month": "long"}),
        ("toLocaleDateString", "en-US", {"timeStyle": "short"}),
        ("toLocaleTimeString", "en-US", {"dateStyle": "short"}),
        ("toLocaleTimeString", "en-US", {"fractionalSecondDigits": 4}),
    ],
)
def test_wrong_locale_or_options_are_refused(function: str, locale: Any, options: Any) -> None:
    with pytest.raises(MappingError, match=r"argument [23]"):
        call(f"date.{function}", [SHOWN, locale, options])


@pytest.mark.parametrize(
    ("now", "expression", "expected"),
    [
        ("2024-02-28 23:59:30", "0 0 29 2 *", 30),
        ("2024-02-28 12:00:00", "*/15 * * * *", 900),
        ("2024-02-28 12:00:00", "0 9 * * 1-5", 75600),
        ("2024-03-01 09:00:00", "0 9 * * 1-5", 259200),
        ("2024-02-28 12:00:00", "@hourly", 3600),
        ("2024-02-28 12:00:00", "@daily", 43200),
        ("2024-02-28 12:00:00", "@weekly", 302400),
        ("2024-02-28 12:00:00", "@monthly", 129600),
        ("2024-02-28 12:00:00", "@yearly", 26568000),
        ("2024-02-28 12:00:00", "*/10 * * * * *", 10),
        ("2024-02-28 12:00:01", "*/2 * * * * *", 5),
        ("2024-02-28 12:00:00.500", "* * * * *", 60),
        ("2024-02-28 12:00:54.400", "* * * * *", 6),
        ("2024-02-28 12:00:57", "* * * * *", 5),
        ("2024-02-28 12:00:00", "0 12 * * *", 86400),
        ("2024-02-28 11:59:59.999", "0 12 * * *", 5),
        ("2024-02-28 12:00:00", "0 0 L * *", 43200),
        ("2024-02-28 12:00:00", "0 0 * * 1#2", 993600),
        ("2024-02-28 12:00:00", "0 0 13 * 5", 129600),
        ("2024-02-28 12:00:00", "1,31 * * * *", 60),
        ("2024-02-28 12:00:00", "  0 0  ? * fri ", 129600),
        ("2024-02-28 12:00:00", "0 0 * * 7", 302400),
        ("2024-02-28 12:00:00", "0 0 * * 5L", 2548800),
        ("2024-02-29 12:00:00", "0 0 */3 * 5", 43200),
        ("2024-02-28 12:00:00", "0 0 */2 * 5", 43200),
    ],
)
def test_cron(now: str, expression: str, expected: int) -> None:
    assert call("cron.nextDelay", [expression], now=ms(now)) == expected


@pytest.mark.parametrize(
    ("now", "after", "expected"),
    [
        ("2024-02-28 12:00:00.250", 0, 59.75),
        ("2024-02-28 12:00:59.999", 0, 0.001),
        ("2024-02-28 12:00:59.999", "2024-02-28 12:01:00", 60.001),
        ("2024-02-28 12:05:30", "2024-02-28 12:01:00", 30),
    ],
)
def test_cron_after_a_moment_is_exact_and_never_gives_it_again(
    now: str, after: str | int, expected: float
) -> None:
    last = ms(after) if isinstance(after, str) else after

    assert call("cron.nextDelay", ["* * * * *", last], now=ms(now)) == expected


@pytest.mark.parametrize("after", [1e300, float("inf"), float("nan"), True, "soon", None])
def test_cron_after_nonsense_is_still_a_delay(after: object) -> None:
    assert call("cron.nextDelay", ["* * * * *", after], now=ms("2024-02-28 12:00:00")) >= 60


@pytest.mark.parametrize(
    "expression",
    [
        "61 * * * *", "* * * 13 *", "0 25 * * *", "not a cron", "5-1 * * * *", "22-2 * * * *", "", "* * * *",
        "* * * * L", "0 0 30 2 *", "0 0 31 4 *", "0 0 W * *", "0 0 15W * *", "0 0 LW * *", "0 0 L-3 * *",
        "@annually", "@midnight", "@reboot", "* * * * * * *", "H * * * *", "*/0 * * * *", "0 0 * * 8",
    ],
)  # fmt: skip
def test_cron_refuses(expression: str) -> None:
    with pytest.raises(MappingError, match="is not a cron expression"):
        call("cron.nextDelay", [expression])


@pytest.mark.row(354)
@pytest.mark.parametrize("given", [None, 5, True, [], {}])
def test_what_is_no_text_has_no_next_time(given: object) -> None:
    assert call("cron.nextDelay", [given]) == -1


def test_without_an_environment_the_expression_says_what_is_missing() -> None:
    compiled = compile_expression("{@date.now}", where="graph.yaml:3:7")

    with pytest.raises(MappingError, match=r"graph\.yaml:3:7: .*ENVIRONMENT"):
        compiled.evaluate({})
    assert compiled.roots == frozenset()
    assert resolve("{ENVIRONMENT}") is UNDEFINED
