"""Properties of all expressions: nothing is changed, compiling means the same as interpreting, data survives."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from language import environment

from hotmesh.core.mapping import (
    ENVIRONMENT,
    apply_writes,
    compile_expression,
    compile_job_maps,
    to_json_value,
)
from hotmesh.core.pipe.coercion import units, whole
from hotmesh.core.pipe.keys import ordered_keys
from hotmesh.core.pipe.nodes import FAILURES
from hotmesh.core.pipe.property import has, read
from hotmesh.core.pipe.table import FUNCTIONS
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

texts = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
DATA_NAMES = ("x", "y", "z")
contexts = st.fixed_dictionaries({"a": st.fixed_dictionaries(dict.fromkeys(DATA_NAMES, json_values))})

# Growing texts and arrays without end is not what these properties are about.
QUIET = sorted(
    set(FUNCTIONS) - {"string.repeat", "string.padStart", "string.padEnd", "string.search", "object.set"}
)
functions = st.sampled_from([f"{{@{name}}}" for name in QUIET])
variables = st.sampled_from(
    ["{$item}", "{$key}", "{$index}", "{$input.0}", "{$output}", "{$item.k}", "{$items}"]
)
paths = st.sampled_from(["{a.x}", "{a.y.0}", "{a.z.k}", "{a.x.length}", "{b}", "{}", "{a.y.k.0}"])
cells = st.one_of(json_values, paths, paths, variables, functions)
operators = st.one_of(functions, functions, functions, variables, cells)


def rows_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    row = st.tuples(operators, st.lists(cells, max_size=2)).map(lambda pair: [pair[0], *pair[1]])
    nested = inner.map(lambda rows: {"@pipe": rows})
    reduce = inner.map(lambda rows: {"@reduce": rows})
    later = st.lists(st.one_of(row, row, nested, reduce), max_size=4)
    return st.tuples(st.lists(cells, max_size=3) | nested, later).map(lambda pair: [pair[0], *pair[1]])


pipes = st.recursive(st.lists(cells, max_size=3).map(lambda row: [row]), rows_of, max_leaves=4)


class Interpreter:
    """The rows of a pipe run one after the other, straight from their description."""

    def __init__(self, context: dict[Any, Any]) -> None:
        self.context = context

    def pipe(self, rows: Any, variables: dict[str, Any] | None, start: list[Any] | None = None) -> Any:
        if not isinstance(rows, list) or not rows:
            raise MappingError("rows")
        previous, queue = start, list[Any]()
        for row in rows:
            if isinstance(row, dict) and "@pipe" in row:
                queue.append(self.pipe(row["@pipe"], variables))
                continue
            if queue:
                previous, queue = queue, []
            if isinstance(row, list):
                if previous is None:
                    previous = [self.cell(cell, variables) for cell in row]
                else:
                    previous = [self.operator(row, previous, variables)] + [
                        self.cell(cell, variables) for cell in row[1:]
                    ]
            elif isinstance(row, dict) and "@reduce" in row:
                if previous is None:
                    raise MappingError("reduce")
                previous = [self.reduce(row["@reduce"], previous)]
            else:
                raise MappingError("row")
        if previous is None:
            raise MappingError("never collected")
        return previous[0] if previous else UNDEFINED

    def operator(self, row: list[Any], previous: list[Any], variables: dict[str, Any] | None) -> Any:
        if not row or not isinstance(row[0], str):
            raise MappingError("operator")
        if row[0].startswith("{@") and row[0].endswith("}"):
            return self.call(row[0], previous)
        if row[0].startswith(("{$item", "{$key", "{$index", "{$input", "{$output")) and row[0].endswith("}"):
            return self.cell(row[0], variables)
        raise MappingError("operator")

    def cell(self, cell: Any, variables: dict[str, Any] | None) -> Any:
        if not isinstance(cell, str) or not (cell.startswith("{") and cell.endswith("}")):
            return cell
        if cell.startswith("{@"):
            return self.call(cell, [])
        names = cell[1:-1].split(".")
        if cell.startswith(("{$item", "{$key", "{$index", "{$input", "{$output")):
            value: Any = variables or {}
        else:
            value = self.context
        for name in names:
            if not isinstance(value, (dict, list)) or not has(value, name):
                return UNDEFINED
            value = read(value, name)
        return value

    def call(self, cell: str, arguments: list[Any]) -> Any:
        function = FUNCTIONS.get(cell[2:-1])
        if function is None or len(arguments) < function.least:
            raise MappingError(cell)
        world = [self.context[ENVIRONMENT]] if function.impure else []
        try:
            result = function.call(*world, *arguments[: function.most])
        except FAILURES as error:
            raise MappingError(cell) from error
        return whole(result) if type(result) is float else result

    def reduce(self, body: Any, previous: list[Any]) -> Any:
        source, initial, *_ = [*previous, UNDEFINED, UNDEFINED]
        result = None if initial is UNDEFINED else copy.deepcopy(initial)
        if isinstance(source, list):
            pairs = [(str(index), item) for index, item in enumerate(source)]
        elif isinstance(source, dict):
            pairs = [(key, source[key]) for key in ordered_keys(source)]
        else:
            pairs = [
                (str(index), unit)
                for index, unit in enumerate(units(source) if isinstance(source, str) else "")
            ]
        for index, (key, item) in enumerate(pairs):
            variables = {"$item": item, "$key": key, "$index": index, "$input": source, "$output": result}
            result = self.pipe(body, variables, [result])
        return result


@settings(max_examples=400, deadline=None)
@given(pipes, contexts)
@example([["{a.x}"], ["{@math.fround}"]], {"a": {"x": None, "y": None, "z": None}})
def test_compiling_means_the_same_as_interpreting_and_changes_nothing(
    rows: Any, data: dict[str, Any]
) -> None:
    context: dict[Any, Any] = {**data, ENVIRONMENT: environment()}
    expression, before = copy.deepcopy(rows), copy.deepcopy(data)
    try:
        wanted = repr(Interpreter(context).pipe(rows, None))
    except MappingError:
        wanted = "error"
    try:
        got = repr(compile_expression({"@pipe": rows}, deferred=True).evaluate(context))
    except MappingError:
        got = "error"

    assert got == wanted
    assert repr(data) == repr(before)
    assert repr(rows) == repr(expression)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_data_survives_a_stored_job(value: Any) -> None:
    writes = compile_job_maps({"kept": "{a.value}", "deep": {"er": "{a.value}"}}).evaluate(
        {"a": {"value": value}}
    )
    stored = apply_writes({}, [(path, to_json_value(leaf)) for path, leaf in writes])

    read_back = json.loads(json.dumps(stored))

    assert read_back == {"kept": value, "deep": {"er": value}}


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_text_reads_back_from_its_units(text: str) -> None:
    again = units(text).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    assert units(again) == units(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["/t", "/f", "/n1", "/d", "/s", "/b", "", "{a.b}", "☕\0"]), max_size=4))
def test_texts_that_look_like_something_else_survive(texts: list[str]) -> None:
    context = {"a": {"t": texts}}

    assert compile_expression({"out": "{a.t}"}).evaluate(context) == {"out": texts}
    assert json.loads(json.dumps(to_json_value(texts))) == texts
