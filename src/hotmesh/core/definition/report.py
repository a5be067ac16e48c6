"""Collects what is wrong with a document, each problem with its place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hotmesh.core.definition.graph import Document, SourceLocation
from hotmesh.errors import Problem
from hotmesh.nearest import nearest


class Report:
    """The problems of one document, in the order they were found.

    A problem with a value is reported at the value, one with a name (unknown, missing something) at the name.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def error(
        self, rule: str, message: str, pointer: str, *, name: bool = False, suggestion: str | None = None
    ) -> None:
        """`name`: the problem is with the name of the node at `pointer`, not with its value."""
        self._add(rule, message, pointer, name, suggestion, "error")

    def warning(
        self, rule: str, message: str, pointer: str, *, name: bool = False, suggestion: str | None = None
    ) -> None:
        self._add(rule, message, pointer, name, suggestion, "warning")

    def _add(
        self, rule: str, message: str, pointer: str, name: bool, suggestion: str | None, severity: str
    ) -> None:
        location = self.document.key_location(pointer) if name else self.document.location(pointer)
        self.problems.append(
            problem_at(location, Problem(rule, message, pointer, suggestion=suggestion, severity=severity))
        )


def problem_at(location: SourceLocation, problem: Problem) -> Problem:
    return Problem(
        problem.rule,
        problem.message,
        problem.path,
        location.file,
        location.line,
        location.column,
        problem.suggestion,
        problem.severity,
    )


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known word of which this one is a misspelling beyond doubt."""
    by_lower = {name.lower(): name for name in sorted(known)}
    found = nearest(word.lower(), by_lower, 0.75)
    return by_lower[found] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A suggestion to write the known word that is most like this one; None if none is."""
    by_lower = {name.lower(): name for name in sorted(known)}
    found = nearest(word.lower(), by_lower)
    return f'did you mean "{by_lower[found]}"?' if found else None


def one_of(words: Iterable[str]) -> str:
    """`"a", "b" or "c"`."""
    *most, last = (f'"{word}"' for word in words)
    return f"{', '.join(most)} or {last}" if most else last


def kind_of(value: Any) -> str:
    """The kind of a JSON value, in the author's words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"
