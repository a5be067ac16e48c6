"""What users may write for something that repeats, and the moments that it names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from hotmesh.core.schedule import Rhythm, is_cron, next_occurrence, read_rhythm
from hotmesh.errors import ConfigError


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "expression",
    ["* * * * *", "0 12 * * *", "*/15 * * * *", "0 9-17 * * 1-5", "0,30 * * * *", "0 8-18/2 * * *"],
)
def test_cron_expressions(expression: str) -> None:
    assert is_cron(expression)
    assert read_rhythm(expression) == Rhythm(expression, None, None)


@pytest.mark.parametrize(
    "expression",
    ["60 * * * *", "* * * * mon", "* * * *", "* * * * * *", "0 0 30 2 *", "not a cron", "", "500ms", 0, -1],
)
def test_what_is_no_rhythm_is_refused(expression: Any) -> None:
    with pytest.raises(ConfigError, match="Invalid cron/interval expression: "):
        read_rhythm(expression)


def test_an_interval_begins_at_once_unless_there_is_a_delay() -> None:
    assert read_rhythm("10 seconds") == Rhythm(None, 10.0, 0.0)
    assert read_rhythm(timedelta(minutes=1), delay="5s") == Rhythm(None, 60.0, 5.0)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 13 * * *", "2024-02-29 12:34:56", "2024-02-29 13:00"),
        ("0 13 * * *", "2024-02-29 13:00", "2024-03-01 13:00"),
        ("@monthly", "2024-02-29 12:34:56", "2024-03-01 00:00"),
        ("30 * * * * *", "2024-02-29 12:34:56", "2024-02-29 12:35:30"),
        ("0 0 29 2 *", "2024-02-29 00:00", "2028-02-29 00:00"),
        ("0 0 */2 * MON", "2024-02-29 12:00", "2024-03-01 00:00"),
    ],
)
def test_the_moment_after(expression: str, after: str, expected: str) -> None:
    assert next_occurrence(expression, at(after)) == at(expected)


def test_moments_are_told_in_utc() -> None:
    after = datetime(2024, 2, 29, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    assert next_occurrence("0 13 * * *", after) == at("2024-02-29 13:00")


@pytest.mark.parametrize(
    "expression", ["0 0 30 2 *", "* * * *", "0 0 L-3 * *", "0 0 15W * *", "H * * * *", "words"]
)
def test_what_names_no_moment_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="is not a cron expression"):
        next_occurrence(expression, at("2024-02-29 12:00"))


@pytest.mark.parametrize("day", range(7))
@pytest.mark.parametrize("year", [1999, 2024, 2072, 2099, 2190])
def test_whether_an_expression_can_match_does_not_depend_on_the_day_of_asking(day: int, year: int) -> None:
    """The rarest days come again within fifty years of any day: a leap day that is a Monday, for one."""
    assert is_cron(f"0 0 29 2 {day}")
    assert next_occurrence(f"0 0 29 2 {day}", datetime(year, 1, 1, tzinfo=UTC))
