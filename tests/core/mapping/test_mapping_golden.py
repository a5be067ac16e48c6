"""Every golden case, by its id."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from language import encoded, load, same

from hotmesh.errors import MappingError
from hotmesh.evaluate import evaluate, evaluate_condition

PIPES = load("pipes.jsonl")
RULES = load("rules.jsonl")
ERROR = {"$error": True}


@pytest.mark.parametrize("case", PIPES, ids=[case["id"] for case in PIPES])
def test_pipe(case: dict[str, Any]) -> None:
    pipe, context = copy.deepcopy(case["pipe"]), copy.deepcopy(case["context"])
    try:
        result = encoded(evaluate({"@pipe": pipe}, context, tz=case.get("tz", "UTC")))
    except MappingError:
        result = ERROR

    assert same(result, case["expected"]), result
    assert (pipe, context) == (case["pipe"], case["context"])


@pytest.mark.parametrize("case", RULES, ids=[case["id"] for case in RULES])
def test_rule(case: dict[str, Any]) -> None:
    context = copy.deepcopy(case["context"])
    try:
        if case["kind"] == "maps":
            result = encoded(evaluate(case["rules"], context, tz="UTC"))
        else:
            result = evaluate_condition(case["rule"], context, case["code"], tz="UTC")
    except MappingError:
        result = ERROR

    assert same(result, case["expected"]), result
    assert context == case["context"]
