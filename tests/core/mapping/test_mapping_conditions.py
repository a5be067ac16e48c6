"""Conditions of transitions."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hotmesh.core.mapping import compile_condition
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

CONTEXT = {"a": {"five": 5, "text": "5", "null": None, "nan": math.nan, "list": [1], "yes": True}}
FAILS = {"expected": True, "actual": {"@pipe": [[None], ["{@string.trim}"]]}}


def taken(rule: Any, code: Any = 200) -> bool:
    return compile_condition(rule).evaluate(CONTEXT, code)


def match(actual: Any, expected: Any) -> dict[str, Any]:
    return {"match": [{"expected": expected, "actual": actual}]}


@pytest.mark.parametrize(
    ("rule", "code", "expected"),
    [
        (None, 500, True),
        (True, 500, True),
        (False, 200, False),
        ({}, 200, True),
        ({}, 404, False),
        ({"code": 0}, 200, True),
        ({"code": ""}, 200, True),
        ({"code": None}, 200, True),
        ({"code": "422"}, 422, True),
        ({"code": ["422", 500]}, 422, True),
        ({"code": ["422", 500]}, 500, True),
        ({"code": ["422", 500]}, 200, False),
        ({"code": []}, 200, False),
        ({"match": None}, 200, True),
        ({"match": []}, 200, True),
        ({"match": [], "gate": "or"}, 200, False),
        ({"code": 500, "match": [FAILS]}, 200, False),
    ],
)
def test_codes(rule: Any, code: int, expected: bool) -> None:
    assert taken(rule, code) is expected


@pytest.mark.parametrize(
    ("actual", "expected", "holds"),
    [
        ("{a.five}", 5, True),
        ("{a.five}", 5.0, True),
        ("{a.text}", 5, False),
        ("{a.null}", None, True),
        ("{a.none}", None, False),
        ("{a.none}", UNDEFINED, True),
        ("{a.nan}", math.nan, False),
        ("{a.list}", [1], False),
        ("{a.yes}", 1, False),
        ("{a.text}", "{a.text}", False),
    ],
)
def test_actual_must_strictly_equal_the_literal_expected(actual: Any, expected: Any, holds: bool) -> None:
    assert taken(match(actual, expected)) is holds


@pytest.mark.parametrize("gate", [None, "and", "OR", "any"])
def test_every_other_gate_means_all(gate: Any) -> None:
    entries = [{"expected": 5, "actual": "{a.five}"}, {"expected": 6, "actual": "{a.five}"}]

    assert taken({"gate": gate, "match": entries}) is False
    assert taken({"gate": "or", "match": entries}) is True


def test_evaluation_stops_where_the_answer_is_known() -> None:
    no, yes = {"expected": 1, "actual": 2}, {"expected": 1, "actual": 1}

    assert taken({"match": [no, FAILS]}) is False
    assert taken({"gate": "or", "match": [yes, FAILS]}) is True
    with pytest.raises(MappingError, match=r"string\.trim"):
        taken({"match": [yes, FAILS]})


@pytest.mark.parametrize("rule", ["yes", [], 5, {"match": {}}, {"match": ["x"]}])
def test_malformed_conditions_do_not_compile(rule: Any) -> None:
    with pytest.raises(MappingError):
        compile_condition(rule)


def test_what_a_condition_reads() -> None:
    assert compile_condition(match("{a.five}", "{b.c}")).paths == {"a.five"}
