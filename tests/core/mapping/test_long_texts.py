"""Texts of a payload that are read as something else: no text takes longer than its length, however it is made."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from language import call

from hotmesh.core.duration import seconds
from hotmesh.core.pipe.table import DOMAINS
from hotmesh.core.schedule import is_cron, next_occurrence
from hotmesh.errors import ConfigError, MappingError

LONG = 400_000
"""Characters. What is quadratic takes minutes."""

BLANKS = " Jan 1 2020" + " " * LONG + "x"
DIGITS = "1" * LONG + "x"
TEXTS = (BLANKS, DIGITS, "Jan 1 2020" + "(" * LONG, "1." * (LONG // 2), "en" + "-abcde" * (LONG // 6))


@pytest.mark.parametrize("text", TEXTS, ids=["blanks", "digits", "parens", "dots", "tags"])
def test_a_long_text_is_no_date(text: str) -> None:
    """A bound that is looked at before the text is: NaN, an invalid date or an error, as of any text that is none."""
    began = time.process_time()
    assert math.isnan(call("date.parse", [text]))
    assert call("date.fromISOString", [text]).milliseconds is None
    for name in DOMAINS["date"]:
        if name.startswith(("get", "set", "to", "value")):
            with pytest.raises(MappingError, match="a date has at most 200 characters") as error:
                call(f"date.{name}", [text, 1])
            assert len(str(error.value)) < 500
    assert time.process_time() - began < 5


def test_a_date_of_two_hundred_characters_is_one() -> None:
    text = "Thu Feb 29 2024 12:34:56 GMT+0530 (India Standard Time)"
    assert call("date.parse", [text.ljust(200)]) == call("date.parse", [text]) == 1709190296000
    assert math.isnan(call("date.parse", [text.ljust(201)]))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("math.add", [1, DIGITS]),
        ("math.add", [1, " " * LONG + DIGITS]),
        ("math.round", ["-" + DIGITS]),
        ("number.gt", [DIGITS, 1]),
        ("math.multiply", ["1." * LONG, 2]),
    ],
)
def test_a_long_text_is_no_number(function: str, arguments: list[Any]) -> None:
    began = time.process_time()
    assert call(function, arguments) in (False, pytest.approx(math.nan, nan_ok=True))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("1.", 1),
        (".5", 0.5),
        ("1.5e3", 1500),
        ("+1.e1", 10),
        ("00012", 12),
        ("1234567890123456", 1234567890123456),
    ],
)
def test_numbers_are_read_as_before(text: str, number: float) -> None:
    assert call("math.add", [text, 0]) == number
    assert call("number.parseFloat", [text + "x"]) == number


@pytest.mark.parametrize("text", ["1.2.3", ".", "e5", "1e", "1..", "+-1"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert math.isnan(call("math.add", [text, 0]))


def test_a_long_text_is_no_duration_and_no_schedule() -> None:
    for text in ("1s " * LONG, " " * LONG, DIGITS):
        with pytest.raises(ConfigError, match="characters, which is no duration") as error:
            seconds(text)
        assert len(str(error.value)) < 200
        assert not is_cron(text)
    lists = ",".join(["1"] * LONG) + " * * * *"
    assert not is_cron(lists)
    with pytest.raises(ValueError, match=r"it has 800,007 characters"):
        next_occurrence(lists, datetime(2020, 1, 1, tzinfo=UTC))
    every = ",".join(map(str, range(60)))
    assert is_cron(f"{every} {','.join(map(str, range(24)))} * * *")


def test_a_long_text_is_no_zone_and_no_locale() -> None:
    """Neither is it remembered, as those that were looked up are."""
    for arguments in (["en-US", {"timeZone": "A" * LONG}], ["en" + "-abcde" * LONG], [["de", "x" * LONG]]):
        with pytest.raises(MappingError) as error:
            call("date.toLocaleString", [0, *arguments])
        assert len(str(error.value)) < 500
