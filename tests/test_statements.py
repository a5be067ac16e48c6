"""Statements stand where they can be read: in SQL files, and in the one package that talks to Postgres."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "hotmesh"

STATEMENT = re.compile(
    r"\s*(select\b.*\bfrom\b|select mesh\.|insert into |update \w+.* set |delete from |with \w+ as |create |drop |alter |listen |notify )",
    re.IGNORECASE | re.DOTALL,
)

SHOWN = {"cli/demo.py", "observe/doctor/findings.py"}
"""What these show their reader is a statement."""


def texts(path: Path) -> Iterator[str]:
    """The texts of a module that are not docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def statements(path: Path) -> list[str]:
    return [text for text in texts(path) if STATEMENT.match(text) and "\\" not in text]


def test_only_the_package_that_remembers_knows_sql() -> None:
    found = {
        path.relative_to(SOURCE).as_posix(): statements(path)
        for path in SOURCE.rglob("*.py")
        if not path.is_relative_to(SOURCE / "postgres")
    }
    assert {name for name, texts in found.items() if texts} == SHOWN


def test_a_statement_would_be_found() -> None:
    assert any(statements(path) for path in (SOURCE / "postgres").rglob("*.py"))
