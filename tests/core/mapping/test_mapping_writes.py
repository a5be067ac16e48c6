"""What `job.maps` blocks write, and how values are stored."""

from __future__ import annotations

import copy
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from hotmesh.core.mapping import apply_writes, compile_job_maps, to_json_value, to_text
from hotmesh.core.pipe.instant import Date
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

CONTEXT = {
    "a": {
        "obj": {"x": 1, "y": UNDEFINED, "-m": 2, "_s": 3, "0": "zero", "7": "seven"},
        "list": ["p", "q", "r"],
        "n": 5,
    }
}


def writes(tree: Any) -> dict[tuple[str, ...], Any]:
    return dict(compile_job_maps(tree).evaluate(CONTEXT))


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (None, {}),
        ({}, {}),
        (
            {"a": {"b": {"c": "{a.n}", "d": 1}}, "e": None},
            {("a", "b", "c"): 5, ("a", "b", "d"): 1, ("e",): None},
        ),
        ({"gone": "{a.none}", "kept": False, "empty": ""}, {("kept",): False, ("empty",): ""}),
        ({"whole": "{a.list}", "tree": ["{a.n}", {}]}, {("whole",): ["p", "q", "r"], ("tree",): [5, {}]}),
        ({"empty": {}}, {("empty",): {}}),
        ({"dots.stay": "{a.n}"}, {("dots.stay",): 5}),
        # slots
        ({"s[4]": "{a.list}"}, {("s", "0"): "p", ("s", "1"): "q", ("s", "2"): "r"}),
        ({"s[3]": {"1": "{a.n}", "2": {"deep": 1}}}, {("s", "1"): 5, ("s", "2"): {"deep": 1}}),
        ({"s[3]": "{a.none}"}, {}),
        ({"s[3]": None}, {}),
        # markers and search fields
        ({"m[-]": "{a.obj}"}, {("-m",): 2, ("_s",): 3}),
        ({"m[_]": {"_u": "{a.n}", "plain": 1}}, {("_u",): 5}),
        ({"m[-]": "{a.n}"}, {}),
        ({"-direct": 1}, {("-direct",): 1}),
        ({"odd[x]": 1, "[3]": 2}, {("odd[x]",): 1, ("[3]",): 2}),
        # a pipe at the root writes every member it returns
        ({"@pipe": [["k", 1, "-m", 2], ["{@object.create}"]]}, {("k",): 1, ("-m",): 2}),
        ({"@pipe": [["text"]]}, {}),
    ],
)
def test_writes(tree: Any, expected: dict[tuple[str, ...], Any]) -> None:
    assert writes(tree) == expected


def test_writes_read_and_fail_like_expressions() -> None:
    compiled = compile_job_maps({"x": {"y": "{a.n}"}, "s[2]": "{$job.data.z}"})

    assert compiled.roots == {"a", "$job"}
    with pytest.raises(MappingError, match=r"app\.yaml:4:2"):
        compile_job_maps({"x": {"@pipe": [[1], ["{@string.trim}"]]}}, where="app.yaml:4:2").evaluate(CONTEXT)


def test_writes_leave_what_is_beside_them() -> None:
    data: dict[str, Any] = {"a": {"b": 1, "c": [1]}, "list": ["p", "q"], "text": "t"}
    before = copy.deepcopy(data)

    result = apply_writes(
        data,
        [(("a", "d"), 2), (("a", "e", "f"), 3), (("list", "1"), "Q"), (("text", "x"), 4), (("a", "c"), None)],
    )

    assert result == {
        "a": {"b": 1, "c": None, "d": 2, "e": {"f": 3}},
        "list": {"0": "p", "1": "Q"},
        "text": {"x": 4},
    }
    assert data == before


def test_a_deeper_write_never_changes_the_value_written_before_it() -> None:
    value = {"inner": {"x": 1}}

    result = apply_writes({}, [(("a",), value), (("a", "inner", "y"), 2)])

    assert result == {"a": {"inner": {"x": 1, "y": 2}}}
    assert value == {"inner": {"x": 1}}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (UNDEFINED, None),
        ({"a": UNDEFINED, "b": [UNDEFINED, {"c": UNDEFINED}]}, {"b": [None, {}]}),
        ([math.nan, math.inf, -math.inf, 3.0, -0.0, 1.5], [None, None, None, 3.0, -0.0, 1.5]),
        (1e20, 1e20),
        (1e21, 1e21),
        (2**53 + 1, 2**53 + 1),
        (10**400, 10**400),
        (Date(0), "1970-01-01T00:00:00.000Z"),
        (Date(None), None),
        (Date(253402300800000), "+010000-01-01T00:00:00.000Z"),
        ({"d": datetime(2024, 2, 29, 12, tzinfo=UTC)}, {"d": "2024-02-29T12:00:00.000Z"}),
        ((1, 2), [1, 2]),
        (["a\ud83d", {"\ude00é": "é"}], ["a\ufffd", {"\ufffdé": "é"}]),
    ],
)
def test_what_is_stored(value: Any, stored: Any) -> None:
    result = to_json_value(value)

    assert json.dumps(result) == json.dumps(stored)


def test_a_value_that_is_json_already_is_stored_as_it_is() -> None:
    value = {"a": [1, "x", None, True, {"b": 1.5}]}

    assert to_json_value(value) is value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e21, "1e+21"), (123456789012345680000, "123456789012345680000"), (1e-6, "0.000001"), (1e-7, "1e-7"),
        (1.5e300, "1.5e+300"), (-0.0, "0"), (5.0, "5"), (0.1, "0.1"), (-1e-7, "-1e-7"), (5e-324, "5e-324"),
        (12345678901234567890, "12345678901234567000"), (math.nan, "NaN"), (-math.inf, "-Infinity"),
        (None, "null"), (UNDEFINED, "undefined"), (True, "true"), ([1, [None, 2]], "1,,2"), ({}, "[object Object]"),
        (123.456, "123.456"), (100, "100"), (Date(None), "Invalid Date"),
    ],
)  # fmt: skip
def test_text_of_values(value: Any, text: str) -> None:
    assert to_text(value) == text


def test_a_value_that_is_nested_too_deeply_is_refused() -> None:
    value: Any = []
    for _ in range(2_000):
        value = [{"in": value}]

    with pytest.raises(MappingError, match="nested too deeply"):
        to_json_value(value)
