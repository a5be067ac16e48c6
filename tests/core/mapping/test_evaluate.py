"""The public functions, and `hotmesh eval`."""

from __future__ import annotations

import doctest
import json
import re
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hotmesh.cli.evaluate import evaluate as command
from hotmesh.core.pipe.instant import Date
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import ConfigError, MappingError
from hotmesh.evaluate import evaluate, evaluate_condition


def test_a_result_belongs_to_the_caller() -> None:
    literal: dict[str, Any] = {"list": []}
    context = {"a": {"list": [1]}}

    result = evaluate({"x": {"@pipe": [[literal]]}, "y": "{a.list}"}, context)
    result["x"]["list"].append(1)
    result["y"].append(2)

    assert literal == {"list": []}
    assert context == {"a": {"list": [1]}}


def test_hidden_members_do_not_come_out() -> None:
    rows = [[{}, "h", {"value": 1}], ["{@object.defineProperty}"]]

    result = evaluate({"@pipe": rows})

    assert (type(result), result) == (dict, {})


def test_a_result_that_is_nested_too_deeply_is_refused() -> None:
    def nested(levels: int) -> Any:
        return evaluate({"@pipe": [["[" * levels + "]" * levels], ["{@json.parse}"]]})

    assert str(nested(200)) == "[" * 200 + "]" * 200
    for levels in (201, 900):
        with pytest.raises(MappingError, match="nested too deeply"):
            nested(levels)


def test_dates_come_out_as_datetime() -> None:
    assert evaluate({"@pipe": [["2024-02-29"], ["{@date.fromISOString}"]]}) == datetime(
        2024, 2, 29, tzinfo=UTC
    )
    invalid = evaluate([{"@pipe": [["never"], ["{@date.fromISOString}"]]}])[0]
    assert isinstance(invalid, Date)
    assert (invalid.milliseconds, str(invalid)) == (None, "Invalid Date")


def test_undefined_is_not_null() -> None:
    assert evaluate("{a.b}", {}) is UNDEFINED
    assert evaluate("{a.b}") is UNDEFINED
    assert evaluate(None) is None


def test_an_unreached_error_is_none() -> None:
    bad = {"expected": 1, "actual": "{@no.such}"}

    assert evaluate_condition({"match": [{"expected": 1, "actual": 2}, bad]}) is False
    with pytest.raises(MappingError, match="Unknown domain name"):
        evaluate_condition({"match": [bad]})


HOURS = {"@pipe": [["2024-07-01T12:00:00Z"], ["{@date.getHours}"]]}


def test_the_zone_is_that_of_the_process_at_the_time_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for zone in ("America/New_York", "Asia/Kolkata", "UTC", ":Europe/London", "EST5EDT"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        seen.append(evaluate(HOURS))
    monkeypatch.undo()
    time.tzset()

    assert seen == [8, 17, 12, 13, 8]


def test_the_zone_can_be_given() -> None:
    assert evaluate(HOURS, tz="Asia/Tokyo") == 21
    with pytest.raises(ConfigError, match="Mars"):
        evaluate(HOURS, tz="Mars/Base")


def test_a_zone_without_a_name_follows_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-3")
    time.tzset()
    hours = evaluate(HOURS)
    text = evaluate({"@pipe": [[0], ["{@date.toString}"]]})
    wall = evaluate({"@pipe": [["2024-07-01T12:00:00"], ["{@date.parse}"], ["{@date.toISOString}"]]})
    monkeypatch.undo()
    time.tzset()

    assert hours == 15
    assert text == "Thu Jan 01 1970 03:00:00 GMT+0300 (GMT+03:00)"
    assert wall == "2024-07-01T09:00:00.000Z"


def test_the_clock_and_chance_are_real() -> None:
    before = time.time() * 1000
    now, chance = evaluate(["{@date.now}", "{@math.random}"])

    assert before - 1 <= now <= time.time() * 1000 + 1
    assert 0 <= chance < 1


def test_the_floor_of_delays_is_configurable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HMSH_FIDELITY_SECONDS", "100")
    assert evaluate({"@pipe": [["* * * * *"], ["{@cron.nextDelay}"]]}) == 100
    monkeypatch.setenv("HMSH_FIDELITY_SECONDS", "soon")
    with pytest.raises(ConfigError, match="HMSH_FIDELITY_SECONDS"):
        evaluate(1)


def test_examples() -> None:
    assert doctest.testmod(import_module("hotmesh.evaluate"), raise_on_error=True).attempted >= 3


def run(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, arguments, input=stdin)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def context_file(tmp_path: Path) -> str:
    file = tmp_path / "context.yaml"
    file.write_text("a: {list: [1, 2], day: 2024-02-29, name: Zoë, 'x:y': colon}", encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("{a.list}", [1, 2]),
        ('{"@pipe": [["{a.list}"], ["{@array.length}"]]}', 2),
        ("'@pipe': [['{a.list}'], ['{@array.length}']]", 2),
        ("{a.day}", "2024-02-29T00:00:00.000Z"),
        ("{a.name}", "Zoë"),
        ("{a.x:y}", "colon"),
        ("[yes, 010, 12:30]", ["yes", 10, "12:30"]),
        ('{"@pipe": [["a😀b", 1], ["{@string.charAt}"]]}', "\ufffd"),
        ("{@symbol.NaN}", None),
    ],
)
def test_eval_prints_json(context_file: str, expression: str, printed: Any) -> None:
    code, output, _ = run(expression, "--context", context_file)

    assert (code, json.loads(output)) == (0, printed)


def test_eval_reads_stdin_and_files(context_file: str, tmp_path: Path) -> None:
    assert run("{a.x}", "--context", "-", stdin='{"a": {"x": 1}}')[1] == "1\n"
    assert run("-", "--context", context_file, stdin="{a.list.1}")[1] == "2\n"
    (tmp_path / "map.yaml").write_text('total: "{a.list.0}"', encoding="utf-8")
    assert json.loads(run(f"@{tmp_path / 'map.yaml'}", "--context", context_file)[1]) == {"total": 1}


def test_eval_prints_undefined() -> None:
    assert run("{a.x}")[:2] == (0, "undefined\n")


def test_eval_answers_conditions() -> None:
    assert run("--condition", "--code", "422", '{"code": 422}')[:2] == (0, "true\n")
    assert run("--condition", '{"code": 422}')[:2] == (0, "false\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{@string.nope}"], "Unknown domain function"),
        (["{a}", "--context", "/no/such/file"], "cannot read"),
        (["{a}", "--tz", "Mars/Base"], "unknown time zone"),
        (["-", "--context", "-"], "stdin"),
        (["a: [", "--context", "-"], "neither JSON nor YAML"),
        (["a: {t1.x}"], "write '{t1.x}'"),
    ],
)
def test_eval_fails_with_2_and_says_why(arguments: list[str], message: str) -> None:
    code, output, error = run(*arguments, stdin="{}")

    assert (code, output) == (2, "")
    assert message in error


def test_eval_wants_an_object_for_context() -> None:
    code, _, error = run("{a}", "--context", "-", stdin="[1]")

    assert (code, "must be an object" in error) == (2, True)


def test_the_examples_of_the_guide_run() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "mapping.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)

    assert blocks
    for block in blocks:
        exec(compile(block, "docs/mapping.md", "exec"), {})
