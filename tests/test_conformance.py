"""docs/conformance.md and the tests agree: every row is proven, or listed with the reason why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
ROWS = {
    int(number): proof for number, proof in re.findall(r"^\| (\d+) \| .* \| (.*) \|$", PAGE, re.MULTILINE)
}
EXPECTED = [*range(1, 378)]


def _named() -> dict[int, set[str]]:
    """Row → the tests that carry its number."""
    found: dict[int, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for name, numbers in re.findall(
            r"^(?:async )?def (test_row_(\d+(?:_and_\d+)*)\w*)", text, re.MULTILINE
        ):
            for number in numbers.split("_and_"):
                found.setdefault(int(number), set()).add(f"{path.relative_to(TESTS).as_posix()}::{name}")
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


def test_every_test_that_names_a_row_is_listed() -> None:
    missing = {
        test
        for row, tests in _named().items()
        if row in ROWS
        for test in tests
        if f"`{test}`" not in ROWS[row]
    }
    assert not missing
