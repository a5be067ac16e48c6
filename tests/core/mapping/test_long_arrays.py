"""Arrays that a small payload would make large, and functions that copied what they work on once for each member."""

from __future__ import annotations

import time
from typing import Any

import pytest
from language import call, resolve

from hotmesh.core.pipe.meter import MOST_ELEMENTS
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("object.set", [[], "9999999", 1]),
        ("object.set", [[1], str(MOST_ELEMENTS), 1]),
        ("object.set", [[], 4_294_967_294, 1]),
        ("object.set", [[], "length", MOST_ELEMENTS + 1]),
        ("object.assign", [[1], {"5000000": 1}]),
        ("object.defineProperty", [[1], "5000000", {"value": 1}]),
        ("object.defineProperties", [[1], {"5000000": {"value": 1}}]),
    ],
)
def test_no_index_makes_an_array_of_millions(function: str, arguments: list[Any]) -> None:
    with pytest.raises(MappingError, match="elements: it may have 1,048,576 at most"):
        call(function, arguments)


def test_the_largest_array_by_an_index() -> None:
    made = call("object.set", [[7], str(MOST_ELEMENTS - 1), 1])
    assert (len(made), made[0], made[1], made[-1]) == (MOST_ELEMENTS, 7, UNDEFINED, 1)
    assert call("object.set", [made, "length", 1]) == [7]


@pytest.mark.parametrize(
    "row",
    [
        [["{@string.split}", ""]],
        [["{@string.split}", "x"]],
        [["{@object.keys}"], ["{@array.length}"]],
        [["{@object.values}"]],
        [["{@object.entries}"]],
    ],
)
def test_no_text_that_was_repeated_makes_an_array_of_millions(row: Any) -> None:
    (first, *more), *rest = row
    pipe = {"@pipe": [["x", "{a.n}"], ["{@string.repeat}", *more], [first], *rest]}
    with pytest.raises(MappingError, match="makes the array too long"):
        resolve(pipe, {"a": {"n": 2_000_000}})
    assert resolve(pipe, {"a": {"n": 3}}) in (["x"] * 3, [""] * 4, 3, [["0", "x"], ["1", "x"], ["2", "x"]])


def test_a_reduce_pays_for_what_it_sets() -> None:
    body = [["{$output}", "{a.key}", 1], ["{@object.set}"]]
    pipe = {"@pipe": [["{a.items}", []], {"@reduce": body}]}
    with pytest.raises(MappingError, match="takes too much work"):
        resolve(pipe, {"a": {"items": [1] * 100, "key": "999999"}})


MANY = {f"k{number}": number for number in range(30_000)}
LONG = list(range(30_000))


@pytest.mark.parametrize(
    ("function", "arguments", "size"),
    [
        ("object.assign", [LONG, LONG], 30_000),
        ("object.assign", [[], MANY], 0),
        ("object.assign", [LONG, {str(30_000 + number): 1 for number in LONG}], 60_000),
        ("object.defineProperties", [{}, {key: {"value": 1, "enumerable": True} for key in MANY}], 30_000),
        ("object.defineProperties", [LONG, {str(number): {"value": 1} for number in LONG}], 30_000),
        ("json.stringify", [[{"k1": 1}] * 30_000, list(MANY)], 30_000 * 9 + 1),
    ],
)
def test_what_changes_many_members_copies_once(function: str, arguments: list[Any], size: int) -> None:
    """Copied for each member, these take from ten seconds to minutes."""
    began = time.process_time()
    assert len(call(function, arguments)) == size
    assert time.process_time() - began < 5


def test_nothing_that_is_given_changes() -> None:
    items, members = [1, 2], {"a": 1}
    assert call("object.assign", [items, [3]]) == [3, 2]
    assert call("object.assign", [members, {"b": 2}, {"a": 3}]) == {"a": 3, "b": 2}
    assert call("object.defineProperties", [members, {"z": {"value": 1, "enumerable": True}}]) == {
        "a": 1,
        "z": 1,
    }
    assert call("object.set", [items, "5", 1])[5] == 1
    assert call("object.set", [items, "name", 1]) == [1, 2]
    assert (items, members) == ([1, 2], {"a": 1})


def test_keys_to_keep_stay_in_their_order() -> None:
    only = ["z", *MANY, "a", "z"]
    assert call("json.stringify", [{"a": 1, "k2": 2, "z": 3, "none": 4}, only]) == '{"z":3,"k2":2,"a":1}'
