"""Payloads as they are stored: nothing merges, nothing changes its kind, and what cannot be stored is found where it is."""

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from hotmesh.core.mapping import compile_expression, compile_job_maps, to_json_value
from hotmesh.core.wire import dumps, dumps_text, loads, normalise
from hotmesh.errors import PayloadError


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Whole(int):
    pass


class Real(float):
    pass


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Order:
    lines: list[Any] = field(default_factory=list)
    more: Any = None


class Model:
    def model_dump(self, mode: str) -> Any:
        raise RuntimeError(f"no {mode} today")


def stored(value: Any) -> Any:
    return normalise(value, limit=100_000, what="data for order.placed")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1: "a", "1": "b"}, "the keys 1 and '1', which are one and the same in JSON, at $"),
        (
            {"a": [{"1.5": 0, 1.5: 0}]},
            "the keys '1.5' and 1.5, which are one and the same in JSON, at $.a[0]",
        ),
        ({"a": {Colour.RED: 1, "red": 2}}, "the keys <Colour.RED: 'red'> and 'red', which are one"),
        (
            {"a": Order(more={2: 1, "2": 1})},
            "the keys 2 and '2', which are one and the same in JSON, at $.a.more",
        ),
        ({Whole(1): 0, "1": 0}, "the keys 1 and '1', which are one and the same in JSON, at $"),
    ],
)
def test_keys_that_are_one_in_json_are_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(PayloadError) as raised:
        stored(value)

    assert str(raised.value).startswith(f"data for order.placed cannot be stored as JSON: {said}")


def test_keys_that_stay_apart_are_kept() -> None:
    assert stored({1: "a", "2": "b", 1.5: "c"}) == {"1": "a", "2": "b", "1.5": "c"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Text("x"), '"x"'),
        ({"a": [Text("x"), Whole(4), Real(1.5)]}, '{"a":["x",4,1.5]}'),
        ({Text("k"): Text("v")}, '{"k":"v"}'),
        ({Whole(1): Real(2.0)}, '{"1":2.0}'),
        ({"deep": [{Real(1.5): (Whole(1),)}]}, '{"deep":[{"1.5":[1]}]}'),
        (Order([Whole(1)]), '{"lines":[1],"more":null}'),
    ],
)
def test_subclasses_of_text_and_numbers_are_stored_as_what_they_are(value: Any, text: str) -> None:
    assert dumps_text(stored(value)) == text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [0, {"b": object()}]}, "a value of type object at $.a[1].b"),
        ({"a": Order([1, deque()])}, "a value of type deque at $.a.lines[1]"),
        ({"a.b": {"c d": {1, object}}}, 'a value of type set at $["a.b"]["c d"]'),
        ({"a": [Text("x"), object()]}, "a value of type object at $.a[1]"),
        ({"a": Whole(1), "b": object()}, "a value of type object at $.b"),
        ({"a": [Real("nan")]}, "the number nan at $.a[0]"),
        ({"a": {"b": (1, float("inf"))}}, "the number inf at $.a.b[1]"),
        ({"a": {True: 1}}, "a key of type bool at $.a"),
        (
            {"a": [0, Order(more=Model())]},
            "a value of type Model, whose conversion raised RuntimeError, at $.a[1].more",
        ),
    ],
)
def test_what_cannot_be_stored_is_named_with_its_path(value: Any, said: str) -> None:
    with pytest.raises(PayloadError) as raised:
        stored(value)

    assert str(raised.value) == f"data for order.placed cannot be stored as JSON: {said}"


@pytest.mark.parametrize("number", [1.0, 0.0, -3.0, 1e6, 2.5, 1e22, 1, 10**17 + 1])
def test_a_number_arrives_as_it_was_sent(number: float) -> None:
    context = {"a": stored({"n": number, "list": [number]})}
    read = compile_expression({"n": "{a.n}", "all": "{a}", "piped": {"@pipe": [["{a.n}"]]}}).evaluate(context)
    written = dict(compile_job_maps({"n": "{a.n}", "lit": number}).evaluate(context))
    arrived = loads(dumps(to_json_value([read, written["n",], written["lit",]])))
    found = [arrived[0]["n"], *arrived[0]["all"]["list"], arrived[0]["piped"], *arrived[1:]]

    assert [(value, type(value)) for value in found] == [(number, type(number))] * 5


@pytest.mark.parametrize(
    ("pipe", "text"),
    [
        ([[6, 2], ["{@math.divide}"]], "3"),
        ([["{a.n}", 1], ["{@math.add}"]], "2"),
        ([[7, 2], ["{@math.divide}"]], "3.5"),
        ([[-1, 0], ["{@math.multiply}"]], "0"),
        ([["[1.0, 2.50, {\"a\": -3e2}]"], ["{@json.parse}"]], '[1,2.5,{"a":-300}]'),
    ],
)  # fmt: skip
def test_what_functions_compute_is_whole_where_it_has_no_fraction(pipe: Any, text: str) -> None:
    result = to_json_value(compile_expression({"@pipe": pipe}).evaluate({"a": {"n": 1.0}}))

    assert dumps_text(result) in {text, f"{text}.0"[: len(text) + 2 * (text == "0")]}


@pytest.mark.parametrize("raw", [b"{nope", b"NaN", b"", b'"open', b"1 2", b"\xff"])
def test_raw_json_that_is_none_is_refused_by_its_path(raw: bytes) -> None:
    with pytest.raises(PayloadError) as error:
        normalise({"a": [1], "x": {"y": msgspec.Raw(raw)}}, limit=1_000, what="data for go")
    text = str(error.value)
    assert text.startswith("data for go cannot be stored as JSON: a msgspec.Raw that is not JSON at $.x.y")


def test_raw_json_is_what_it_says() -> None:
    data = {"x": [msgspec.Raw(b'{"a": [1, null]}')], "y": msgspec.Raw(b" 2.0 ")}
    assert normalise(data, limit=1_000, what="data") == {"x": [{"a": [1, None]}], "y": 2.0}


def test_minus_zero_is_kept_all_the_way() -> None:
    """Read, mapped, written and read again; `0.0 == -0.0`, so its text is what is compared."""
    data = normalise({"y": -0.0, "z": [-0.0, 0.0, 0]}, limit=1_000, what="data")
    mapped = to_json_value(compile_expression({"m": "{a.y}", "l": "{a.z}"}).evaluate({"a": data}))
    assert repr(loads(dumps(mapped))) == "{'m': -0.0, 'l': [-0.0, 0.0, 0]}"
