"""No module needs one that needs it: not when it is imported, nor inside a function, nor for its types."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

PACKAGES = ["hotmesh"]
"""The packages that have neither a circle nor an import of ours that is hidden from the start of the program."""

LAZY: Mapping[tuple[str, str], str] = {
    ("hotmesh.core.pipe.coercion", "hotmesh.core.pipe.zone"): "locale data: only when a date is written out",
    ("hotmesh.core.pipe.date", "hotmesh.core.pipe.intl"): "locale data: only when a date is written out",
    (
        "hotmesh.postgres.connect.source",
        "hotmesh.postgres.local",
    ): "the embedded Postgres: only where no other is named",
    ("hotmesh.runtime.telemetry.tracing", "hotmesh.runtime.telemetry.spans"): "needs an optional package",
}
"""Imports inside functions, (importer, imported) → why they are there. They count as any other."""


def modules(package: str) -> dict[str, Path]:
    """The modules of a package by name; a package itself is its `__init__`."""
    found = {}
    for path in sorted((SOURCE / package.replace(".", "/")).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """What of `known` a module imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from package import module`, or a name out of a module.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in names]
        else:
            continue
        yield from (name for name in names if name in known)


def hidden(path: Path) -> Iterator[str]:
    """The imports that are not made at the start: inside functions, and those for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if inside or typing:
            for statement in ast.walk(node):
                if isinstance(statement, ast.ImportFrom):
                    yield str(statement.module)
                elif isinstance(statement, ast.Import):
                    yield from (alias.name for alias in statement.names)


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that all need each other, directly or through others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for name in arrows[todo.pop()] - seen:
                seen.add(name)
                todo.append(name)
        return seen

    reach = {name: reached(name) for name in arrows}
    found = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in arrows}
    return sorted([list(group) for group in found if group])


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_circle(package: str) -> None:
    known = modules(package)
    arrows = {name: set(imports(path, known)) for name, path in known.items()}
    assert sum(map(len, arrows.values())) > len(arrows) / 2, "the imports are not found"
    assert circles(arrows) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_module_needs_stands_at_its_top(package: str) -> None:
    found = {
        (name, imported)
        for name, path in modules(package).items()
        for imported in hidden(path)
        if imported.startswith("hotmesh")
    }
    assert found == {pair for pair in LAZY if pair[0] in modules(package)}


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [["b", "c"], ["d"]]
