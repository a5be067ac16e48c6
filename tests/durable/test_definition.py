"""What a decorated function is to us, and the mistakes that are said when it is read."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from hotmesh.core.durable.retry import RetryPolicy
from hotmesh.durable import activity, workflow
from hotmesh.durable.convert import Converter, Custom
from hotmesh.durable.definition import (
    ActivityDefinition,
    activities_by_name,
    read_activity,
    read_workflow,
    workflows_by_name,
)
from hotmesh.durable.signature import Signature
from hotmesh.errors import ConfigError, PayloadError

pytestmark = pytest.mark.anyio


@dataclass
class Receipt:
    amount: Decimal


@activity.defn(start_to_close_timeout="30s", retry={"maximum_attempts": 3})
async def charge(order_id: str, amount: Decimal = Decimal(1), *, note: str | None = None) -> Receipt:
    """Takes the money."""
    return Receipt(amount)


@activity.step
async def reserve(sku: str, count: int = 1) -> str:
    """Finds a shelf."""
    return f"{sku}/{count}"


@workflow.defn(task_queue="orders", name="order")
async def run_order(order_id: str, amount: Decimal) -> Receipt:
    return await charge(order_id, amount)


@workflow.defn
class Basket:
    def __init__(self) -> None:
        self.items: list[str] = []

    @workflow.run
    async def run(self, owner: str) -> int:
        self.items.append(owner)
        return len(self.items)

    @workflow.signal
    async def add(self, sku: str) -> None:
        self.items.append(sku)

    @workflow.signal(name="drop")
    def remove(self, sku: str) -> None:
        self.items.remove(sku)


class Till:
    def __init__(self, name: str) -> None:
        self.name = name

    @activity.defn
    async def open(self, code: int) -> str:
        return f"{self.name}:{code}"

    @activity.defn(name="shut")
    def close(self) -> str:
        return self.name

    @activity.step
    async def count(self, coins: list[Decimal]) -> str:
        return f"{self.name}:{sum(coins)}"

    @staticmethod
    @activity.defn
    async def total(a: int) -> int:
        return a


class Strand(asyncio.SelectorEventLoop):
    """Stands for the loop of a workflow: whatever step is called on it, it says which."""

    def call_step(
        self, definition: ActivityDefinition[Any, Any], args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        async def asked() -> Any:
            return definition.name, definition.signature().pack(args, kwargs), definition.function

        return asked()


async def test_a_definition_says_what_was_decorated() -> None:
    order = read_workflow(run_order)
    assert (order.name, order.options.task_queue, order.is_class, order.made_of) == (
        "order",
        "orders",
        False,
        run_order,
    )
    paid = read_activity(charge)
    assert (paid.name, paid.is_async, paid.is_step) == ("charge", True, False)
    assert paid.options.start_to_close_timeout == 30.0
    assert paid.options.retry == RetryPolicy(maximum_attempts=3)
    shelf = read_activity(reserve)
    assert (shelf.name, shelf.is_async, shelf.is_step) == ("reserve", True, True)


async def test_what_is_decorated_stays_what_it_was() -> None:
    assert charge.__doc__ == "Takes the money."
    assert reserve.__doc__ == "Finds a shelf."
    assert list(inspect.signature(reserve).parameters) == ["sku", "count"]
    assert await charge("a", Decimal(2)) == Receipt(Decimal(2))
    assert await reserve("lamp") == "lamp/1"
    assert await Till("north").count([Decimal(1)]) == "north:1"


def test_a_step_that_is_called_in_a_workflow_is_asked_of_its_loop() -> None:
    loop = Strand()
    try:

        async def main() -> Any:
            return await reserve("lamp", 2), await Till("north").count([Decimal("1.5")])

        first, second = loop.run_until_complete(main())
    finally:
        loop.close()

    assert first[:2] == ("reserve", b'["lamp",2]')
    assert second[:2] == ("count", b'[["1.5"]]')
    assert second[2].__self__.name == "north"


async def test_undecorated_functions_will_do() -> None:
    async def plain(a: int) -> int:
        return a

    def blocking(a: int) -> int:
        return a

    assert read_workflow(plain).name == "plain"
    assert not read_activity(blocking).is_async
    lock = threading.Lock()  # what cannot be pickled may well be in a closure

    async def closure(a: int) -> bool:
        return lock.locked()

    assert read_workflow(closure).signature().unpack(b"[1]") == ((1,), {})


async def test_a_class_has_an_instance_for_each_execution() -> None:
    basket = read_workflow(Basket)
    args, kwargs = basket.signature().unpack(b'["ann"]')
    one, other = basket.instance(), basket.instance()

    assert one is not other
    assert await basket.begin(one, args, kwargs) == 1
    assert other.items == []
    assert sorted(basket.signals) == ["add", "drop"]
    assert basket.signals["drop"].signature().unpack(b'["lamp"]') == (("lamp",), {})


async def test_a_class_below_a_workflow_is_read_by_itself() -> None:
    class Bigger(Basket):
        @workflow.run
        async def run(self, owner: str, more: int = 1) -> int:
            return more

    assert read_workflow(Bigger).name == "Bigger"
    assert read_workflow(Bigger).signature().unpack(b'["ann",3]') == (("ann", 3), {})


async def test_a_worker_takes_functions_lists_dicts_and_objects() -> None:
    till = Till("north")
    found = activities_by_name([charge, reserve, till, len_of])

    assert sorted(found) == ["charge", "count", "len_of", "open", "reserve", "shut", "total"]
    assert await found["open"].function(5) == "north:5"
    assert found["open"].signature().unpack(b"[5]") == ((5,), {})
    assert activities_by_name(till.open)["open"].function(5).close() is None
    assert sorted(workflows_by_name([run_order, Basket])) == ["Basket", "order"]
    assert sorted(workflows_by_name({"one": run_order, "two": Basket})) == ["one", "two"]
    assert workflows_by_name(run_order)["order"] is read_workflow(run_order)
    assert workflows_by_name(None) == {}
    assert sorted(activities_by_name([charge, charge])) == ["charge"]


def len_of(text: str) -> int:
    return len(text)


def a_partial() -> Any:
    return functools.partial(charge, "a")


def not_async() -> Any:
    @unchecked.defn  # type: ignore[untyped-decorator]
    def sync(a: int) -> int:
        return a

    return sync


def with_yield() -> Any:
    async def many(a: int) -> AsyncIterator[int]:
        yield a

    return unchecked.defn(many)


def sync_step() -> Any:
    @unchecked_activity.step  # type: ignore[untyped-decorator]
    def blocking(a: int) -> int:
        return a

    return blocking


def without_run() -> Any:
    @workflow.defn
    class Empty:
        async def run(self) -> None: ...

    return Empty


def two_runs() -> Any:
    @workflow.defn
    class Twice:
        @workflow.run
        async def one(self) -> None: ...

        @workflow.run
        async def two(self) -> None: ...

    return Twice


def init_with_arguments() -> Any:
    @workflow.defn
    class Wanting:
        def __init__(self, name: str) -> None: ...

        @workflow.run
        async def run(self) -> None: ...

    return Wanting


def sync_run() -> Any:
    class Slow:
        @workflow.run
        def run(self) -> None: ...

    return Slow


def two_signals() -> Any:
    @workflow.defn
    class Twice:
        @workflow.run
        async def run(self) -> None: ...

        @workflow.signal(name="go")
        def one(self) -> None: ...

        @workflow.signal(name="go")
        def two(self) -> None: ...

    return Twice


def of_one_name() -> Any:
    async def order() -> None: ...

    return workflows_by_name([run_order, order])


def activities_of_one_name() -> Any:
    return activities_by_name([Till("a"), Till("b")])


unchecked: Any = workflow
unchecked_activity: Any = activity
"""The same, where what no checker lets through is to be tried."""

MISTAKES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (not_async, ConfigError, "workflow sync is not async: write `async def sync`"),
    (with_yield, ConfigError, "workflow many has a yield"),
    (sync_step, ConfigError, "write `async def blocking`; a blocking function gets @activity.defn"),
    (without_run, ConfigError, "workflow class Empty has no method with @workflow.run"),
    (two_runs, ConfigError, "has 2 methods (one, two) with @workflow.run"),
    (init_with_arguments, ConfigError, "its __init__ wants some (missing a required argument: 'name')"),
    (sync_run, ConfigError, "@workflow.run needs an `async def`, and sync_run.<locals>.Slow.run is none"),
    (two_signals, ConfigError, "two handlers of signal go"),
    (of_one_name, ConfigError, "workflows has two functions of the name order: "),
    (activities_of_one_name, ConfigError, "activities has two functions of the name "),
    (lambda: read_workflow(lambda: None), ConfigError, "a lambda has no name, so it cannot be a workflow"),
    (lambda: read_activity(lambda: None), ConfigError, "a lambda has no name, so it cannot be an activity"),
    (
        lambda: read_workflow(a_partial()),
        ConfigError,
        "is a partial, whose bound arguments another process cannot know",
    ),
    (
        lambda: read_workflow(Basket().run),
        ConfigError,
        "run is a method of an object, which no other process has",
    ),
    (lambda: read_workflow(5), ConfigError, "5 is no function, so it cannot be a workflow"),  # type: ignore[arg-type]
    (
        lambda: activities_by_name(object()),
        ConfigError,
        "has no function that @activity.defn or @activity.step marks",
    ),
    (
        lambda: activities_by_name({5: charge}),
        ConfigError,
        "the keys of activities are the names of functions",
    ),
    (lambda: activities_by_name(Till), ConfigError, "Till is a class: give an object of it"),
    (lambda: unchecked.defn("order"), ConfigError, "its options have names: @workflow.defn(name='order')"),
    (
        lambda: unchecked.defn(task_que="q"),
        TypeError,
        "@workflow.defn has no option task_que; did you mean task_queue?",
    ),
    (
        lambda: unchecked_activity.defn(retry=3),
        ConfigError,
        "retry of @activity.defn must be a RetryPolicy or a dict",
    ),
    (
        lambda: activity.defn(staticmethod(len_of)),
        ConfigError,
        "put the decorator of an activity below @staticmethod",
    ),
]


@pytest.mark.row("CB-28")
@pytest.mark.parametrize(("make", "kind", "words"), MISTAKES)
def test_a_mistake_is_said_when_the_function_is_read(
    make: Callable[[], Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        make()

    assert words in str(caught.value)


def signature(function: Callable[..., Any]) -> Signature:
    return read_activity(function).signature()


def several(
    a: int, /, b: Decimal, c: str = "c", *rest: Decimal, d: bool, e: Receipt | None = None, **more: int
) -> None: ...


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], bytes]] = [
    (charge, ("o-1", Decimal("9.99")), {}, b'["o-1","9.99"]'),
    (charge, ("o-1",), {}, b'["o-1"]'),
    (charge, (), {"order_id": "o-1"}, b'["o-1"]'),
    (charge, ("o-1",), {"note": "x"}, b'{"args":["o-1"],"kwargs":{"note":"x"}}'),
    (charge, (), {"amount": Decimal(2), "order_id": "o-1"}, b'["o-1","2"]'),
    (several, (1, Decimal(2)), {"d": True}, b'{"args":[1,"2"],"kwargs":{"d":true}}'),
    (
        several,
        (1, Decimal(2), "x", Decimal(3)),
        {"d": True, "e": Receipt(Decimal(4)), "f": 5},
        b'{"args":[1,"2","x","3"],"kwargs":{"d":true,"e":{"amount":"4"},"f":5}}',
    ),
]


@pytest.mark.parametrize(("function", "args", "kwargs", "payload"), CALLS)
async def test_arguments_come_back_as_they_were(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], payload: bytes
) -> None:
    found = signature(function)

    stored, copies, named = found.record(args, kwargs)

    assert stored == payload
    assert found.unpack(stored) == found.unpack(stored.decode()) == (copies, named)
    assert found.from_json(found.to_json(args, kwargs)) == (copies, named)
    given, had = (
        inspect.signature(function).bind(*args, **kwargs),
        inspect.signature(function).bind(*copies, **named),
    )
    assert given.arguments == had.arguments


@pytest.mark.row("WP-44")
async def test_defaults_are_those_of_the_function_that_runs() -> None:
    async def older(a: int) -> None: ...
    async def newer(a: int, b: int = 5, *, c: int = 6) -> int:
        return a + b + c

    args, kwargs = signature(newer).unpack(signature(older).pack([1]))

    assert await newer(*args, **kwargs) == 12


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing a required argument: 'order_id'"),
        (("a", Decimal(1), "c"), {}, "too many positional arguments"),
        (("a",), {"nota": "x"}, "unexpected keyword argument 'nota'"),
        (("a",), {"order_id": "b"}, "multiple values for argument 'order_id'"),
    ],
)
async def test_a_call_that_does_not_fit_is_refused_as_by_the_function(
    args: tuple[Any, ...], kwargs: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError) as caught:
        signature(charge).pack(args, kwargs)

    assert str(caught.value).startswith(
        "charge(order_id, amount=Decimal('1'), *, note=None) cannot be called so: "
    )
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (
            b"[]",
            "the stored arguments do not fit charge(order_id, amount=Decimal('1'), *, note=None): missing",
        ),
        (
            b"[1]",
            "argument order_id of charge does not fit its annotation str: Expected `str`, got `int` at order_id",
        ),
        (b'["a","x"]', "argument amount of charge does not fit its annotation Decimal"),
        (b'{"args":["a"],"kwargs":{"note":1}}', "argument note of charge does not fit"),
        (b'{"order_id":"a"}', "neither a JSON list nor"),
        (b'"a"', "neither a JSON list nor"),
        (b'{"args":1}', "neither a JSON list nor"),
    ],
)
async def test_stored_arguments_that_do_not_fit_say_which(payload: bytes, words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        signature(charge).unpack(payload)

    assert words in str(caught.value)


async def test_a_function_known_by_name_takes_any_arguments() -> None:
    found = Signature.untyped("far", Converter())

    assert found.unpack(found.pack((1, "a"), {"b": [2]})) == ((1, "a"), {"b": [2]})
    assert found.unpack(b"null") == ((), {})
    with pytest.raises(PayloadError, match="argument args of far cannot be stored as JSON"):
        found.pack((object(),))


async def test_the_result_is_stored_by_its_annotation() -> None:
    found = signature(charge).result

    assert found.record(Receipt(Decimal("1.5"))) == (b'{"amount":"1.5"}', Receipt(Decimal("1.5")))
    with pytest.raises(PayloadError, match="result of charge does not fit its annotation Receipt"):
        found.record("none")


async def test_each_converter_has_its_own_compiled_form() -> None:
    class Money:
        pass

    async def pay(money: Money) -> None: ...

    definition = read_activity(activity.defn(pay))
    with pytest.raises(
        ConfigError, match=r"argument money of pay cannot be stored as JSON: .*Money has no form"
    ):
        definition.signature()
    converter = Converter([Custom(Money, encode=lambda _: 5, decode=lambda _: Money())])
    assert definition.signature(converter).pack([Money()]) == b"[5]"
    assert definition.signature(converter) is definition.signature(converter)


async def test_annotations_may_name_what_stands_in_the_function_around() -> None:
    @dataclass
    class Local:
        a: int

    @workflow.defn
    async def near(local: Local) -> Local:
        return local

    assert read_workflow(near).signature().unpack(b'[{"a":1}]') == ((Local(1),), {})


async def test_an_annotation_that_names_nothing_is_said_at_registration() -> None:
    async def broken(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(
        ConfigError, match="the annotations of broken cannot be read: name 'Missing' is not defined"
    ):
        read_workflow(workflow.defn(broken)).signature()
