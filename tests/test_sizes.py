"""Modules that can be read in a sitting, and classes with one subject."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "hotmesh"

LINES = 500
METHODS = 25

LONG = {"mesh.py"}
EXCEPTIONS = {"HotMesh"}
"""The module with more lines and the class with more methods; `docs/architecture.md` says why."""


def test_no_module_is_too_long_to_be_read() -> None:
    lines = {
        path.relative_to(SOURCE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
    }
    assert len(lines) > 200, "the modules are not found"
    assert {name for name, count in lines.items() if count > LINES} == LONG


def test_no_class_has_too_many_methods() -> None:
    large = {
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and sum(isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) for member in node.body) > METHODS
    }
    assert large == EXCEPTIONS
