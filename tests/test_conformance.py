"""docs/conformance.md and the tests agree: every row is proven, or listed with the reason why not."""

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


def _marked() -> dict[int, set[str]]:
    """Row → the tests that are marked with it."""
    found: dict[int, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            test = f"{path.relative_to(TESTS).as_posix()}::{node.name}"
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.row":
                    for number in decorator.args:
                        found.setdefault(ast.literal_eval(number), set()).add(test)
    return found


def test_every_row_is_listed() -> None:
    assert sorted(ROWS) == sorted(EXPECTED)


@pytest.mark.parametrize("row", EXPECTED)
def test_each_row_has_a_proof_or_a_reason(row: int) -> None:
    proof = ROWS[row]
    tests = re.findall(r"`([\w/]+\.py)::(\w+)`", proof)
    assert tests or proof.startswith(("does not apply: ", "not yet: "))
    for path, name in tests:
        text = (TESTS / path).read_text(encoding="utf-8")
        assert re.search(rf"^(?:async )?def {name}\(", text, re.MULTILINE), f"{path} has no {name}"


def test_every_test_that_is_marked_with_a_row_is_listed() -> None:
    marked = _marked()
    assert len(marked) > 200, "the marks are not found"
    missing = {
        test for row, tests in marked.items() if row in ROWS for test in tests if f"`{test}`" not in ROWS[row]
    }
    assert not missing
