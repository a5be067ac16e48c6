"""The function reference: complete, up to date, and its examples hold."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from language import encoded, same

from hotmesh.core.mapping import ENVIRONMENT, compile_expression
from hotmesh.core.pipe.instant import Date
from hotmesh.core.pipe.reference import FROZEN, Example, examples, write_reference
from hotmesh.core.pipe.table import DOMAINS, FUNCTIONS

REFERENCE = Path(__file__).parents[3] / "docs" / "functions.md"

ALL = [(name, example) for name, function in FUNCTIONS.items() for example in examples(function)]


def test_there_are_194_functions() -> None:
    assert {domain: len(functions) for domain, functions in DOMAINS.items()} == {
        "array": 14, "bitwise": 6, "conditional": 10, "cron": 1, "date": 47, "json": 2, "logical": 2, "math": 39,
        "number": 18, "object": 22, "string": 20, "symbol": 9, "unary": 4,
    }  # fmt: skip
    assert len(FUNCTIONS) == 194


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_explained_with_an_example(name: str) -> None:
    function = FUNCTIONS[name]

    assert examples(function)
    assert not (inspect.getdoc(function.call) or "").startswith("Example")


@pytest.mark.parametrize(("name", "example"), ALL, ids=[f"{name}{example.text}" for name, example in ALL])
def test_example_holds(name: str, example: Example) -> None:
    cells = [f"{{a.{index}}}" for index in range(len(example.arguments))]
    compiled = compile_expression({"@pipe": [cells, [f"{{@{name}}}"]]})

    result: Any = compiled.evaluate({"a": example.arguments, ENVIRONMENT: FROZEN})

    if isinstance(result, Date):
        result = f"Date {result}"
    assert same(encoded(result), encoded(example.result)), result


def test_the_reference_is_up_to_date() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == write_reference(), (
        "python -m hotmesh.core.pipe.reference > docs/functions.md"
    )
