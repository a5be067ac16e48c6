"""Values by annotation: what comes back is what was given, or it is refused with its place."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, Required, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotmesh.durable.convert import DEFAULT_CONVERTER, Converter, Custom, Shape
from hotmesh.errors import ConfigError, MessageTooLargeError, PayloadError

T = TypeVar("T")


def shape(annotation: Any, converter: Converter = DEFAULT_CONVERTER) -> Shape[Any]:
    return converter.shape(annotation, "argument order of ship", "order")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclass
class Item:
    sku: str
    price: Decimal


@dataclass
class Order:
    items: list[Item]
    at: dt.datetime
    tags: set[str] = field(default_factory=set)
    by: dict[str, Item] = field(default_factory=dict)


@dataclass
class Box(Generic[T]):
    inside: T


@dataclass
class Tree:
    name: str
    below: list[Tree] = field(default_factory=list)


class Place(NamedTuple):
    x: int
    y: int = 0


class Patch(TypedDict, total=False):
    id: Required[int]
    day: dt.date


class Model(pydantic.BaseModel):
    when: dt.datetime
    money: Decimal = pydantic.Field(alias="amount")
    tags: set[str] = set()


class Struct(msgspec.Struct):
    raw: bytes
    id: UUID


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    name: str


@attrs.define
class Attrs:
    seconds: dt.timedelta


@dataclass
class WithModel:
    model: Model
    more: list[Model] = field(default_factory=list)


NOON = dt.datetime(2026, 2, 3, 12, 30, 5, 123456, tzinfo=dt.UTC)
MODEL = Model(when=NOON, amount=Decimal("9.90"), tags={"a"})

VALUES: list[tuple[Any, Any]] = [
    (str, "text"),
    (int, 10**40),
    (float, 0.1),
    (bool, False),
    (None, None),
    (bytes, b"\x00\xff"),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=7)),
    (dt.datetime, NOON),
    (dt.datetime, NOON.replace(tzinfo=None)),
    (dt.datetime, NOON.replace(tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30)))),
    (dt.date, dt.date(2026, 2, 3)),
    (dt.time, dt.time(12, 30, 5, 7)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=5)),
    (Colour, Colour.BLUE),
    (Right, Right.READ | Right.WRITE),
    (Literal["a", 1] | None, 1),
    (int | str | None, "x"),
    (int | None, None),
    (list[int] | str, [1]),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (dict[int, Decimal], {1: Decimal(2)}),
    (dict[dt.date, list[UUID]], {dt.date(2026, 1, 1): [UUID(int=1)]}),
    (dict[Colour, int], {Colour.RED: 1}),
    (Mapping[str, Sequence[int]], {"a": [1]}),
    (Order, Order([Item("a", Decimal("1.10"))], NOON, {"x", "y"}, {"k": Item("b", Decimal(2))})),
    (Box[dt.date], Box(dt.date(2026, 1, 1))),
    (list[Box[Colour]], [Box(Colour.RED)]),
    (Tree, Tree("a", [Tree("b", [Tree("c")])])),
    (Place, Place(1, 2)),
    (Patch, {"id": 1, "day": dt.date(2026, 1, 1)}),
    (Patch, {"id": 1}),
    (Model, MODEL),
    (Model | None, MODEL),
    (dict[str, list[Model]], {"a": [MODEL]}),
    (WithModel, WithModel(MODEL, [MODEL])),
    (Struct, Struct(b"\xff", UUID(int=3))),
    (Cat | Dog, Dog("rex")),
    (Attrs, Attrs(dt.timedelta(seconds=90))),
    (Annotated[int, msgspec.Meta(ge=0)], 3),
    (Any, {"a": [1, 2.5, None, "x"]}),
    (object, [1]),
]


@pytest.mark.row("PX-01")
@pytest.mark.parametrize(("annotation", "value"), VALUES)
def test_a_value_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    found = shape(annotation)

    payload, copy = found.record(value)

    assert (copy, type(copy)) == (value, type(value))
    assert found.decode(payload) == value
    assert found.decode(payload.decode()) == value
    assert found.from_json(found.to_json(value)) == value
    json.loads(payload)


@pytest.mark.row("CB-11", "CB-10")
@pytest.mark.parametrize("value", [0, "", False, [], {}, None, [{"a": [None, True, 1.5]}]])
def test_without_an_annotation_a_value_is_plain_json(value: Any) -> None:
    found = shape(Any)

    payload, copy = found.record(value)

    assert (copy, type(copy)) == (value, type(value))
    assert payload == json.dumps(value, separators=(",", ":")).encode()


def test_live_code_gets_what_a_replay_gets() -> None:
    given = {"pair": (1, 2), "at": NOON, "item": Item("a", Decimal(1))}

    payload, copy = shape(Any).record(given)

    assert copy == shape(Any).decode(payload)
    assert copy == {"pair": [1, 2], "at": "2026-02-03T12:30:05.123456Z", "item": {"sku": "a", "price": "1"}}


def test_the_copy_shares_nothing_with_what_was_given() -> None:
    given = Order([Item("a", Decimal(1))], NOON)

    _, copy = shape(Order).record(given)
    given.items.append(Item("b", Decimal(2)))

    assert len(copy.items) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_all_json_comes_back(value: Any) -> None:
    payload, copy = shape(Any).record(value)

    assert copy == value
    assert shape(Any).decode(payload) == value


class Opaque:
    pass


def itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def deep(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


ORDER = Order([Item("a", Decimal(1)), Item("b", Decimal(2))], NOON)

REFUSED: list[tuple[Any, Any, str]] = [
    (Any, {"items": [1, {"price": Opaque()}]}, "a value of type Opaque at order.items[1].price"),
    (Any, [float("nan")], "the number nan at order[0]"),
    (float | None, math.inf, "the number inf at order"),
    (Any, {"a b": [None, -math.inf]}, 'the number -inf at order["a b"][1]'),
    (Any, "half \ud800", "text with half of a surrogate pair at order"),
    (Any, {1: "a", "1": "b"}, "a dict of which two keys are one and the same in JSON, at order"),
    (dict[Any, int], {"x": 1, 2: 3, "2": 4}, "one and the same in JSON, at order"),
    (Any, [{(1, 2): 3}], "a dict whose keys JSON cannot have"),
    (Any, itself(), "contains itself"),
    (Any, deep(250), "a value nested more than 200 levels deep"),
    (Any, threading.Lock(), "a value of type lock at order"),
    (Any, {"f": len}, "a value of type builtin_function_or_method at order.f"),
    (Order, Order([Item("a", Opaque())], NOON), "a value of type Opaque at order.items[0].price"),  # type: ignore[arg-type]
    (int, "3", "does not fit its annotation int: Expected `int`, got `str` at order"),
    (int, True, "Expected `int`, got `bool` at order"),
    (
        Order,
        Order([Item("a", Decimal(1)), Item(2, Decimal(1))], NOON),  # type: ignore[arg-type]
        "Expected `str`, got `int` at order.items[1].sku",
    ),
    (
        Order,
        Order([], NOON, by={"a": Item("a", Decimal(1)), "the b": Item("b", "x")}),  # type: ignore[arg-type]
        'Invalid decimal string at order.by["the b"].price',
    ),
    (Annotated[int, msgspec.Meta(ge=0)], -1, "Expected `int` >= 0 at order"),
    (None, 5, "Expected `null`, got `int` at order"),
]


@pytest.mark.row("RT-26")
@pytest.mark.parametrize(("annotation", "value", "words"), REFUSED)
def test_what_cannot_be_stored_is_refused_with_its_place(annotation: Any, value: Any, words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        shape(annotation).record(value)

    assert words in str(caught.value)
    assert str(caught.value).startswith("argument order of ship ")


def test_a_coroutine_that_was_not_awaited_is_said_to_be_one() -> None:
    async def price() -> int:
        return 1

    with pytest.raises(PayloadError, match=r"a coroutine that was not awaited at order\.price"):
        shape(Any).record({"price": price()})


@dataclass
class LargeItem(Item):
    size: int = 3


class Wide(Model):
    more: int = 1


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (list[Item], [Item("a", Decimal(1)), LargeItem("b", Decimal(1))], "order[1].size"),
        (Model, Wide(when=NOON, amount=Decimal(1)), "order.more"),
    ],
)
def test_what_a_class_below_the_annotated_one_has_is_not_lost_without_a_word(
    annotation: Any, value: Any, path: str
) -> None:
    with pytest.raises(PayloadError, match="would be lost") as caught:
        shape(annotation).record(value)

    assert f"at {path};" in str(caught.value)


def test_what_another_release_has_written_is_read_as_it_fits() -> None:
    found = shape(Item).decode(b'{"sku":"a","price":"1","colour":"red"}')

    assert found == Item("a", Decimal(1))
    assert shape(Order).decode(b'{"items":[],"at":"2026-02-03T12:30:05.123456Z"}') == Order([], NOON)


def test_a_stored_value_that_does_not_fit_says_where() -> None:
    with pytest.raises(PayloadError) as caught:
        shape(Order).decode(
            b'{"items":[],"at":"2026-02-03T12:30:05Z","by":{"x":{"sku":"a","price":"1"},"y":{"sku":1}}}'
        )
    assert str(caught.value) == (
        "argument order of ship does not fit its annotation Order: Expected `str`, got `int` at order.by.y.sku"
    )
    with pytest.raises(PayloadError, match=r"valid integer.* at order\.number"):
        shape(dict[str, Small]).decode(b'{"number":{"number":"x"}}')


class Small(pydantic.BaseModel):
    number: int


@dataclass
class Holder:
    lock: asyncio.Lock


BAD_ANNOTATIONS: list[tuple[Any, str]] = [
    (asyncio.Lock, "asyncio.locks.Lock has no form in JSON"),
    (Holder, "asyncio.locks.Lock has no form in JSON"),
    (list[dict[str, Opaque]], "Opaque has no form in JSON"),
    (complex, "complex has no form in JSON"),
    (str | dt.datetime, "look alike in JSON"),
    (Item | Order, "look alike in JSON"),
    (Model | int, "look alike in JSON"),
    (enum.Enum("Odd", {"A": 1.5}), "the values of an enum must all be texts, or all whole numbers"),
]


@pytest.mark.parametrize(("annotation", "words"), BAD_ANNOTATIONS)
def test_an_annotation_that_cannot_be_stored_is_refused_when_it_is_compiled(
    annotation: Any, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        shape(annotation)

    assert str(caught.value).startswith("argument order of ship cannot be stored as JSON: ")
    assert words in str(caught.value)


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Bill:
    total: Money
    parts: list[Money | None]


MONEY = Custom(
    Money, encode=lambda money: {"cents": money.cents}, decode=lambda stored: Money(stored["cents"])
)


def test_a_class_of_ones_own_is_stored_by_its_custom() -> None:
    found = shape(Bill, Converter([MONEY]))

    payload, copy = found.record(Bill(Money(5), [Money(1), None]))

    assert payload == b'{"total":{"cents":5},"parts":[{"cents":1},null]}'
    assert copy == Bill(Money(5), [Money(1), None])


def test_a_custom_that_raises_is_said_with_its_place() -> None:
    def broken(_: Any) -> Any:
        raise KeyError("rate")

    found = shape(Bill, Converter([Custom(Money, encode=broken, decode=broken)]))
    with pytest.raises(
        PayloadError, match=r"type Money, of which the conversion says KeyError: 'rate' at order\.total"
    ):
        found.record(Bill(Money(1), []))
    with pytest.raises(PayloadError, match=r"'rate' at order"):
        found.decode(b'{"total":1,"parts":[]}')


def test_a_custom_must_give_back_its_class() -> None:
    wrong: Any = Custom(Money, encode=lambda money: money.cents, decode=lambda cents: cents)

    with pytest.raises(PayloadError, match="decode of the Custom for Money gave int"):
        shape(Bill, Converter([wrong])).record(Bill(Money(1), []))


def test_a_payload_has_a_limit() -> None:
    with pytest.raises(MessageTooLargeError, match="1,002 bytes of JSON, more than the limit of 1,000"):
        shape(str, Converter(limit=1000)).record("x" * 1000)


def test_a_shape_is_compiled_once() -> None:
    assert shape(Order) is shape(Order)


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]
)
def test_a_conversion_ends_nothing_whatever_it_raises(error: BaseException) -> None:
    def broken(_: Any) -> Any:
        raise error

    found = shape(Bill, Converter([Custom(Money, encode=broken, decode=broken)]))

    with pytest.raises(PayloadError, match="argument order of ship cannot be stored"):
        found.record(Bill(Money(1), []))
    with pytest.raises(PayloadError, match="argument order of ship does not fit"):
        found.decode(b'{"total":1,"parts":[]}')
