"""From an expression to its tree of nodes: paths, functions, rows, nested pipes, reduces and map trees.

What is wrong is collected as problems, each with the JSON pointer of its place, and takes the shape of a node that
fails when it is reached; the caller decides whether problems already stop the compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hotmesh.core.pipe.function import kind
from hotmesh.core.pipe.nodes import (
    OUTPUT,
    VARIABLES,
    After,
    Call,
    Constant,
    Failure,
    ListNode,
    MapNode,
    Node,
    Read,
    Reduce,
    Site,
)
from hotmesh.core.pipe.path import compile_path
from hotmesh.core.pipe.table import find_function
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import Problem

MALFORMED = "V2"
ARITY = "V4"

VARIABLE_STARTS = tuple("{" + name for name in VARIABLES)

_UNDEFINED = Constant(UNDEFINED)


class Compiler:
    """Compiles one expression, and remembers the paths it reads and the problems it has."""

    def __init__(self, where: str, source: Any) -> None:
        self.site = Site(where, source)
        self.problems: list[Problem] = []
        self.paths: dict[str, str] = {}
        """Path text → its root."""
        self.may_be_skipped = False
        """Whether evaluation may never reach what is compiled now, so that a sure failure is no problem yet."""
        self._bodies = 0

    def tree(self, value: Any, pointer: str = "") -> Node:
        """A map tree, or any single value."""
        if isinstance(value, dict):
            if "@pipe" in value:
                return self.pipe(value["@pipe"], f"{pointer}/@pipe")
            members = tuple(
                (key, self.tree(member, f"{pointer}/{escape(key)}")) for key, member in value.items()
            )
            if all(isinstance(node, Constant) for _, node in members):
                return Constant({key: node.value for key, node in members if isinstance(node, Constant)})
            return MapNode(members)
        if isinstance(value, list):
            items = tuple(self.tree(item, f"{pointer}/{index}") for index, item in enumerate(value))
            if all(isinstance(node, Constant) for node in items):
                return Constant([node.value for node in items if isinstance(node, Constant)])
            return ListNode(items)
        return self.cell(value, pointer)

    def cell(self, value: Any, pointer: str) -> Node:
        """One cell: a function without arguments, a reduce variable, a path, or a literal."""
        if not isinstance(value, str) or not value.startswith("{") or not value.endswith("}"):
            return Constant(value)
        if value.startswith("{@"):
            return self._call(value, [], pointer)
        if value.startswith(VARIABLE_STARTS):
            return self._variable(value)
        root, *names = value[1:-1].split(".")
        self.paths[value[1:-1]] = root
        return Read(compile_path(root, names))

    def pipe(self, rows: Any, pointer: str, start: Sequence[Node] | None = None) -> Node:
        """The rows of a pipe; those of a reduce body start with the accumulator as their values."""
        if not isinstance(rows, list):
            return self._malformed(f"a pipe is a list of rows, not {kind(rows)}", pointer)
        if not rows:
            return self._malformed("a pipe needs at least one row", pointer)
        values = None if start is None else list(start)
        waiting: list[Node] = []
        discarded: list[Node] = []
        for index, row in enumerate(rows):
            here = f"{pointer}/{index}"
            if isinstance(row, dict) and "@pipe" in row:
                waiting.append(self.pipe(row["@pipe"], f"{here}/@pipe"))
                continue
            if waiting:
                discarded += values or ()
                values, waiting = waiting, []
            if isinstance(row, list):
                if values is None:
                    values = self._cells(row, 0, here)
                else:
                    values = self._row(row, values, here, discarded)
            elif isinstance(row, dict) and "@reduce" in row:
                values = [self._reduce(row["@reduce"], values, here, discarded)]
            else:
                values = [
                    self._malformed(f"a row is an array, an @pipe or a @reduce, not {_row_kind(row)}", here)
                ]
        if values is None:
            return self._malformed("nested pipes need a row after them that takes their results", pointer)
        result, *rest = values or (_UNDEFINED,)
        return _after([*discarded, *rest, *waiting], result)

    def _cells(self, row: list[Any], first: int, pointer: str) -> list[Node]:
        return [self.cell(row[number], f"{pointer}/{number}") for number in range(first, len(row))]

    def _row(self, row: list[Any], values: list[Node], pointer: str, discarded: list[Node]) -> list[Node]:
        if not row:
            return [self._malformed("only the first row of a pipe may be empty", pointer)]
        operator = row[0]
        if isinstance(operator, str) and operator.endswith("}"):
            if operator.startswith("{@"):
                return [self._call(operator, values, f"{pointer}/0"), *self._cells(row, 1, pointer)]
            if operator.startswith(VARIABLE_STARTS):
                discarded += values
                return self._cells(row, 0, pointer)
        message = f"the first cell of a row must be a function such as {{@math.add}}, not {kind(operator)}"
        return [self._malformed(message, f"{pointer}/0"), *self._cells(row, 1, pointer)]

    def _call(self, cell: str, values: Sequence[Node], pointer: str) -> Node:
        function = find_function(cell, pointer)
        if isinstance(function, Problem):
            if function not in self.problems:
                self.problems.append(function)
            return Failure(self.site, function.message)
        if len(values) < function.least:
            needs = "1 argument" if function.least == 1 else f"{function.least} arguments"
            message = f"{cell} needs at least {needs} from the row before it, got {len(values)}"
            if not self._bodies and not self.may_be_skipped:  # a body may never run
                self._problem(ARITY, message, pointer)
            return _after(values, Failure(self.site, message))
        used, ignored = values[: function.most], values[function.most :]
        return _after(ignored, Call(self.site, function, tuple(used), counted=self._bodies > 0))

    def _variable(self, cell: str) -> Node:
        name, *names = cell[1:-1].split(".")
        variable = VARIABLES.get(name)
        if variable is None or not self._bodies:
            return _UNDEFINED
        return Read(compile_path(variable, names))

    def _reduce(self, body: Any, values: list[Node] | None, pointer: str, discarded: list[Node]) -> Node:
        if values is None:
            return self._malformed("a @reduce needs a row before it: [collection, initial value]", pointer)
        collection, initial, *rest = (*values, _UNDEFINED, _UNDEFINED)
        discarded += rest
        self._bodies += 1
        node = self.pipe(body, f"{pointer}/@reduce", [Read(compile_path(OUTPUT, []))])
        self._bodies -= 1
        return Reduce(self.site, collection, initial, node)

    def _malformed(self, message: str, pointer: str) -> Node:
        self._problem(MALFORMED, message, pointer)
        return Failure(self.site, message)

    def _problem(self, rule: str, message: str, pointer: str) -> None:
        self.problems.append(Problem(rule, message, pointer))


def escape(key: str) -> str:
    """A key as a segment of a JSON pointer."""
    return str(key).replace("~", "~0").replace("/", "~1")


def _after(discarded: Sequence[Node], node: Node) -> Node:
    first = tuple(other for other in discarded if other.may_fail)
    return After(first, node) if first else node


def _row_kind(row: Any) -> str:
    return f"an object with {', '.join(map(str, row)) or 'no keys'}" if isinstance(row, dict) else kind(row)
