"""Rows, nested pipes, reduces and map trees, where the golden cases leave them open."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from language import call, pipe, resolve

from hotmesh.core.mapping import compile_expression
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

DATA = {
    "a": {
        "nums": [4, 5, 6],
        "obj": {"b": 1, "10": "x", "9": "y"},
        "text": "go😀",
        "when": datetime(2024, 1, 1, tzinfo=UTC),
    }
}


def nested(*rows: Any) -> dict[str, Any]:
    return {"@pipe": list(rows)}


def reduce(*rows: Any) -> dict[str, Any]:
    return {"@reduce": list(rows)}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("{a}", DATA["a"]),
        ("{a.nums.length}", 3),
        ("{a.nums.2}", 6),
        ("{a.nums.02}", UNDEFINED),
        ("{a.nums.-1}", UNDEFINED),
        ("{a.nums.append}", UNDEFINED),
        ("{a.obj.10}", "x"),
        ("{a.obj.length}", UNDEFINED),
        ("{a.obj.keys}", UNDEFINED),
        ("{a.obj.__class__}", UNDEFINED),
        ("{a.text.0}", UNDEFINED),
        ("{a.text.length}", UNDEFINED),
        ("{a.when.year}", UNDEFINED),
        ("{a.nums.1.x.y.z}", UNDEFINED),
        ("{nowhere}", UNDEFINED),
        ("{$items}", UNDEFINED),
        ("{$app.x}", UNDEFINED),
        ("{a.nums", "{a.nums"),
        ("{@", "{@"),
    ],
)
def test_paths(path: str, expected: Any) -> None:
    value = resolve(path, DATA)

    assert value is expected if expected is UNDEFINED else value == expected


def test_a_long_path_reaches_its_end() -> None:
    data: dict[str, Any] = {"x": 1}
    for name in "hgfedcb":
        data = {name: data}

    assert resolve("{a.b.c.d.e.f.g.h.x}", {"a": data}) == 1


def test_a_first_row_function_of_a_nested_pipe_gets_no_arguments() -> None:
    assert pipe([3, 4], nested(["{@math.add}"]), ["{@math.add}", 10], ["{@math.add}"]) == 10


def test_a_reduce_collects_the_nested_pipes_before_it() -> None:
    rows = [
        ["ignored"],
        nested(["{a.nums}"]),
        nested([100]),
        reduce(["{$output}", "{$item}"], ["{@math.add}"]),
    ]

    assert pipe(*rows, context=DATA) == 115


def test_nested_pipes_at_the_end_are_evaluated_but_ignored() -> None:
    assert pipe([1], nested([2])) == 1
    with pytest.raises(MappingError, match=r"string\.trim"):
        pipe([1], nested([None], ["{@string.trim}"]))


def test_ignored_arguments_are_evaluated_too() -> None:
    with pytest.raises(MappingError, match="Unknown domain function"):
        compile_expression({"@pipe": [["a", "{@string.nope}"], ["{@unary.not}"]]})
    with pytest.raises(MappingError, match=r"json\.parse"):
        pipe([1], ["{@unary.not}", 2], nested([1]), nested(["{"], ["{@json.parse}"]), ["{@unary.not}"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ("text", "a pipe is a list of rows"),
        ([["a"], []], "only the first row of a pipe may be empty"),
        ([reduce(["{$output}"])], "needs a row before it"),
        ([nested(["a"])], "need a row after them"),
        ([["a"], {"@map": []}], "an object with @map"),
        ([["a"], {}], "an object with no keys"),
        ([["a"], 5], "not the number 5"),
        ([["a"], ["{b.c}"]], "must be a function"),
        ([["a"], [None]], "not null"),
        ([["a", 1], reduce()], "at least one row"),
        ([["{@math.divide}"]], "needs at least 1 argument from the row before it, got 0"),
        (
            [[{}, "k"], ["{@object.defineProperty}"]],
            "needs at least 3 arguments from the row before it, got 2",
        ),
    ],
)
def test_malformed_rows_do_not_compile(rows: Any, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        compile_expression({"@pipe": rows})


@pytest.mark.parametrize(
    ("collection", "expected"),
    [
        ([1, 2], "0:1|1:2|"),
        ({"b": 1, "10": "x", "9": "y"}, "9:y|10:x|b:1|"),
        ("a😀", "0:a|1:\ud83d|2:\ude00|"),
        ([], ""),
        ({}, ""),
        (None, ""),
        (5, ""),
        (True, ""),
        (datetime(2024, 1, 1, tzinfo=UTC), ""),
    ],
)
def test_what_a_reduce_iterates(collection: Any, expected: str) -> None:
    body = reduce(["{$output}", "{$key}", ":", "{$item}", "|"], ["{@string.concat}"])

    assert pipe(["{c}", ""], body, context={"c": collection}) == expected


def test_reduce_variables_are_hidden_inside_an_inner_body_and_back_after_it() -> None:
    inner = nested(["{$item}", 0], reduce(["{$output}", "{$item}", "{$index}"], ["{@math.add}"]))
    rows = [
        ["{g}", ""],
        reduce(
            nested(["{$output}"]),
            inner,
            nested(["{$index}"]),
            ["{@string.concat}", ";"],
            ["{@string.concat}"],
        ),
    ]

    assert pipe(*rows, context={"g": [[10, 20], [30]]}) == "310;301;"


def test_reduce_variables_mean_nothing_outside_a_body() -> None:
    assert resolve("{$item}", {"$item": 1}) is UNDEFINED
    assert pipe(["x"], ["{$output.x}"], context={"$output": {"x": 1}}) is UNDEFINED


def test_a_body_row_that_is_a_reduce_takes_the_row_before_it() -> None:
    body = reduce(["{$item}", 0], reduce(["{$output}", "{$item}"], ["{@math.add}"]))

    # [$item, 0] has a reduce variable for operator: its values are the element and 0.
    assert pipe([[[1, 2], [3, 4]], None], body) == 7


def test_a_body_of_nested_pipes_alone_keeps_the_accumulator() -> None:
    assert pipe([[1, 2], "kept"], reduce(nested(["{$item}"]))) == "kept"


def test_a_body_that_never_runs_cannot_fail() -> None:
    assert (
        pipe(["{c}", "x"], reduce(["{$item}"], ["{@string.trim}", "{@math.multiply}"]), context={"c": []})
        == "x"
    )


def test_map_trees_keep_arrays_nulls_and_order() -> None:
    tree = {"b": [1, "{a.nums.0}", {"c": None}], "a": {"d": {}}, "p": {"@pipe": [["{a.nums}"]], "other": 1}}

    result = resolve(tree, DATA)

    assert result == {"b": [1, 4, {"c": None}], "a": {"d": {}}, "p": [4, 5, 6]}
    assert list(result) == ["b", "a", "p"]


def test_literals_inside_a_row_are_not_resolved() -> None:
    assert pipe([{"@pipe": [["x"]]}]) == {"@pipe": [["x"]]}
    assert pipe([["{a.nums}"]]) == ["{a.nums}"]


def test_what_a_compiled_expression_reads() -> None:
    compiled = compile_expression(
        {"x": "{t1.a.b}", "y": {"@pipe": [["{$job.data.z}", "{$item}"], ["{@math.add}"]]}}
    )

    assert compiled.roots == {"t1", "$job"}
    assert compiled.paths == {"t1.a.b", "$job.data.z"}
    assert not compiled.constant
    assert compile_expression({"x": [1, {"y": None}]}).constant


IN_PLACE = [
    ("array.push", [9]), ("array.pop", []), ("array.shift", []), ("array.unshift", [9]), ("array.splice", [0, 1, 7]),
    ("array.reverse", []), ("array.sort", ["DESCENDING"]), ("object.set", ["0", 9]), ("object.assign", [[9]]),
    ("object.defineProperty", ["0", {"value": 9}]), ("object.defineProperties", [{"0": {"value": 9}}]),
    ("object.freeze", []), ("object.seal", []), ("object.preventExtensions", []),
]  # fmt: skip


@pytest.mark.parametrize(("function", "rest"), IN_PLACE)
def test_nothing_changes_data_or_literals(function: str, rest: list[Any]) -> None:
    data = [3, 1, [2]]
    literal = {"@pipe": [[data, *rest], [f"{{@{function}}}"]]}
    before = copy.deepcopy(literal)
    compiled = compile_expression(literal)

    first, second = compiled.evaluate({}), compiled.evaluate({})
    call(function, [data, *rest])

    assert literal == before
    assert first == second
    assert type(data) is list


def test_a_path_reaches_hidden_members_of_an_accumulator() -> None:
    rows = [
        [[1], {}],
        {"@reduce": [["{$output}", "h", {"value": 7}], ["{@object.defineProperty}", "{$output}"]]},
    ]
    hidden = resolve({"@pipe": rows})

    assert resolve("{a.h}", {"a": hidden}) == 7
    assert resolve("{a.x}", {"a": hidden}) is UNDEFINED
    assert resolve("{a.h.0}", {"a": hidden}) is UNDEFINED
