"""The mapping language: expressions, map trees and conditions become closures once, and run on plain data.

An expression is a literal, a path `{a.output.data.x}`, a function `{@date.now}`, an `{"@pipe": rows}` object, or a
map tree of these. A context is the tree of job data; what impure functions need rides along under `ENVIRONMENT`.
Nothing here changes a context or an expression. A result may share structure with both: treat it as read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hotmesh.core.pipe.coercion import strict_equals, to_boolean, to_number, to_text
from hotmesh.core.pipe.compiler import VARIABLE_STARTS, Compiler, escape
from hotmesh.core.pipe.environment import ENVIRONMENT, Environment
from hotmesh.core.pipe.function import kind
from hotmesh.core.pipe.nodes import VARIABLES, Constant
from hotmesh.core.pipe.path import Evaluate
from hotmesh.core.pipe.stored import to_json_value
from hotmesh.core.pipe.table import find_function
from hotmesh.core.pipe.writes import Writes, apply_writes, compile_writes
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import Problem
from hotmesh.nearest import nearest

__all__ = [
    "ENVIRONMENT",
    "Compiled",
    "CompiledCondition",
    "CompiledWrites",
    "Environment",
    "apply_writes",
    "check_condition",
    "check_expression",
    "compile_condition",
    "compile_expression",
    "compile_job_maps",
    "strict_equals",
    "to_json_value",
    "to_number",
    "to_text",
]

ALWAYS_KNOWN = frozenset({"$app", "$self", "$graph", "$job"})
"""Roots that every expression may name."""

DEFAULT_CODE = 200


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression, ready to run.

    `roots` are the first segments of the paths it reads and `paths` the whole texts; one that is `constant` gives
    the same value in every context. `evaluate` may return UNDEFINED, and raises MappingError.
    """

    evaluate: Evaluate
    roots: frozenset[str]
    paths: frozenset[str]
    constant: bool
    source: Any


@dataclass(frozen=True, slots=True)
class CompiledCondition:
    """The `conditions` of a transition: `evaluate(context, code)` says whether it is taken."""

    evaluate: Callable[[Mapping[Any, Any], int], bool]
    roots: frozenset[str]
    paths: frozenset[str]


@dataclass(frozen=True, slots=True)
class CompiledWrites:
    """A `job.maps` block: `evaluate(context)` lists what it writes, leaf by leaf."""

    evaluate: Callable[[Mapping[Any, Any]], Writes]
    roots: frozenset[str]
    paths: frozenset[str]
    source: Any


def compile_expression(value: Any, *, where: str = "", deferred: bool = False) -> Compiled:
    """Compile a literal, path, function, pipe or map tree; `where` is the place named in errors.

    Raises MappingError for an unknown function or a malformed row, unless `deferred`: then only on reaching it.
    """
    compiler = Compiler(where, value)
    node = compiler.tree(value)
    _raise_first(compiler, deferred=deferred)
    constant = isinstance(node, Constant)
    return Compiled(node.emit(), _roots(compiler), frozenset(compiler.paths), constant, value)


def compile_condition(conditions: Any, *, where: str = "", deferred: bool = False) -> CompiledCondition:
    """Compile the `conditions` of a transition: None is always true, a bool itself, else code, gate and match.

    `code` is one or a list, compared as text, 200 if missing; each `actual` of `match` must strictly equal its
    literal `expected`, all of them or, with gate `or`, any.
    """
    compiler = Compiler(where, conditions)
    evaluate = _condition(compiler, conditions)
    _raise_first(compiler, deferred=deferred)
    return CompiledCondition(evaluate, _roots(compiler), frozenset(compiler.paths))


def compile_job_maps(value: Any, *, where: str = "", deferred: bool = False) -> CompiledWrites:
    """Compile a `job.maps` tree into the list of its leaf writes: pairs of path and value.

    An undefined leaf is not written. Keys may end in `[25]`, `[-]` or `[_]`; a member of a marker or search object
    has a path of its own key alone.
    """
    compiler = Compiler(where, value)
    evaluate = compile_writes(compiler, value)
    _raise_first(compiler, deferred=deferred)
    return CompiledWrites(evaluate, _roots(compiler), frozenset(compiler.paths), value)


def check_expression(value: Any, pointer: str, known_roots: Collection[str]) -> list[Problem]:
    """Everything that is wrong with an expression before it runs; `pointer` is its place in the document.

    V2: a path to an unknown activity, or a malformed row. V3, V4: an unknown domain or function, or a call that has
    too few arguments to ever succeed.
    """
    compiler = Compiler("", value)
    compiler.tree(value, pointer)
    return _problems(_check_names(value, pointer, known_roots), compiler)


def check_condition(conditions: Any, pointer: str, known_roots: Collection[str]) -> list[Problem]:
    """As `check_expression`, for the `conditions` of a transition; only its `actual` values are expressions."""
    compiler = Compiler("", conditions)
    _condition(compiler, conditions, pointer)
    names: list[Problem] = []
    match = conditions.get("match") if isinstance(conditions, dict) else None
    for index, entry in enumerate(match if isinstance(match, list) else ()):
        if isinstance(entry, dict) and "actual" in entry:
            names += _check_names(entry["actual"], f"{pointer}/match/{index}/actual", known_roots)
    return _problems(names, compiler)


def _problems(names: Iterator[Problem] | list[Problem], compiler: Compiler) -> list[Problem]:
    return list(dict.fromkeys([*names, *compiler.problems]))


def _check_names(value: Any, pointer: str, known_roots: Collection[str]) -> Iterator[Problem]:
    """Check every text in the value that looks like a statement, also inside literal cells."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _check_names(member, f"{pointer}/{escape(key)}", known_roots)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _check_names(item, f"{pointer}/{index}", known_roots)
    elif isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        if value.startswith("{@"):
            found = find_function(value, pointer)
            if isinstance(found, Problem):
                yield found
            return
        root = value[1:-1].partition(".")[0]
        if root in known_roots or root in ALWAYS_KNOWN:
            return
        if value.startswith(VARIABLE_STARTS) and root in VARIABLES:
            return
        message = f"Mapping statement references non-existent activity: {value}"
        yield Problem("V2", message, pointer, suggestion=_closest(root, known_roots))


def _closest(root: str, known_roots: Collection[str]) -> str:
    """The root that may have been meant, else those that there are."""
    found = nearest(root.strip(), [*known_roots, *ALWAYS_KNOWN, *VARIABLES], 0.5)
    if found:
        return f"did you mean {{{found}}}?"
    there = ["$self", "$job", *sorted(known_roots)]
    more = f" and {len(there) - MOST_ROOTS} more" if len(there) > MOST_ROOTS else ""
    return f"a path begins with one of {', '.join(there[:MOST_ROOTS])}{more}"


MOST_ROOTS: Final = 20
"""Names that a message lists at most."""


def _roots(compiler: Compiler) -> frozenset[str]:
    return frozenset(compiler.paths.values())


def _raise_first(compiler: Compiler, *, deferred: bool) -> None:
    if compiler.problems and not deferred:
        raise compiler.site.error(compiler.problems[0].message)


def _condition(
    compiler: Compiler, conditions: Any, pointer: str = ""
) -> Callable[[Mapping[Any, Any], int], bool]:
    if conditions is None or conditions is True:
        return lambda context, code: True
    if conditions is False:
        return lambda context, code: False
    if not isinstance(conditions, dict):
        return _refuse(compiler, f"conditions are an object or a boolean, not {kind(conditions)}", pointer)
    codes = _codes(conditions.get("code"))
    match = conditions.get("match")
    if match is None:
        return lambda context, code: to_text(code) in codes
    if not isinstance(match, list) or not all(isinstance(entry, dict) for entry in match):
        message = "match is a list of objects with `expected` and `actual`"
        return _refuse(compiler, message, f"{pointer}/match", codes)
    compiler.may_be_skipped = True
    entries = [
        (
            entry.get("expected", UNDEFINED),
            compiler.tree(entry.get("actual", UNDEFINED), f"{pointer}/match/{index}/actual").emit(),
        )
        for index, entry in enumerate(match)
    ]
    either = conditions.get("gate") == "or"

    def evaluate(context: Mapping[Any, Any], code: int) -> bool:
        if to_text(code) not in codes:
            return False
        for expected, actual in entries:
            if strict_equals(actual(context), expected) is either:
                return either
        return not either

    return evaluate


def _codes(code: Any) -> frozenset[str]:
    if isinstance(code, list):
        return frozenset(map(to_text, code))
    return frozenset({to_text(code) if to_boolean(code) else str(DEFAULT_CODE)})


def _refuse(
    compiler: Compiler, message: str, pointer: str, codes: frozenset[str] | None = None
) -> Callable[[Mapping[Any, Any], int], bool]:
    compiler.problems.append(Problem("V2", message, pointer))

    def evaluate(context: Mapping[Any, Any], code: int) -> bool:
        if codes is not None and to_text(code) not in codes:
            return False
        raise compiler.site.error(message)

    return evaluate
