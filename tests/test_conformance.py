"""The pages on conformance and the tests agree: every row is proven, or listed with the reason why not.

Rows of graphs are numbers, those of durable functions are named; a test is marked with what it proves, or says so in its docstring.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
ROWS = {
    int(number): proof for number, proof in re.findall(r"^\| (\d+) \| .* \| (.*) \|$", PAGE, re.MULTILINE)
}
EXPECTED = [*range(1, 378)]
DURABLE = (TESTS.parent / "docs" / "conformance-durable.md").read_text(encoding="utf-8")
NAMED = dict(re.findall(r"^\| ([A-Z]{2}-\d+) \| .* \| (.*) \|$", DURABLE, re.MULTILINE))


def _marked() -> dict[int | str, set[str]]:
    """Row → the tests that are marked with it, or name it."""
    found: dict[int | str, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            test = f"{path.relative_to(TESTS).as_posix()}::{node.name}"
            for row in re.findall(r"\b[A-Z]{2}-\d+\b", ast.get_docstring(node) or ""):
                found.setdefault(row, set()).add(test)
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.row":
                    for number in decorator.args:
                        found.setdefault(ast.literal_eval(number), set()).add(test)
    return found


def test_every_row_is_listed() -> None:
    assert sorted(ROWS) == sorted(EXPECTED)


@pytest.mark.parametrize("row", [*EXPECTED, *NAMED])
def test_each_row_has_a_proof_or_a_reason(row: int | str) -> None:
    proof = ROWS[row] if isinstance(row, int) else NAMED[row]
    tests = re.findall(r"`([\w/]+\.py)::(\w+)`", proof)
    assert tests or proof.startswith(("does not apply: ", "not yet: "))
    for path, name in tests:
        text = (TESTS / path).read_text(encoding="utf-8")
        assert re.search(rf"^(?:async )?def {name}\(", text, re.MULTILINE), f"{path} has no {name}"


def test_every_test_that_is_marked_with_a_row_is_listed() -> None:
    marked = _marked()
    assert len(marked) > 250, "the marks are not found"
    proofs: dict[int | str, str] = dict([*ROWS.items(), *NAMED.items()])
    missing = {
        (row, test)
        for row, tests in marked.items()
        if row in proofs
        for test in tests
        if f"`{test}`" not in proofs[row]
    }
    assert not missing


def test_the_rows_of_durable_functions_are_listed() -> None:
    assert len(NAMED) == 509
    assert not {row for row in _marked() if isinstance(row, str)} - NAMED.keys()
