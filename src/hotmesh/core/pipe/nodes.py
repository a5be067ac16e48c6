"""The tree between an expression and its closure. Every node knows whether it may fail and how to become a closure.

Row lengths are fixed by the text of a pipe, so the values of each row, and who uses them, are known here: what runs
is a tree of calls, and neither rows nor names are left at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, final

from hotmesh.core.pipe.coercion import units, whole
from hotmesh.core.pipe.environment import environment_of
from hotmesh.core.pipe.function import BadArgumentError, Function, short
from hotmesh.core.pipe.keys import ordered_keys
from hotmesh.core.pipe.meter import Meter, call_cost, shift_of, size_cost
from hotmesh.core.pipe.path import Evaluate
from hotmesh.core.values import UNDEFINED
from hotmesh.errors import MappingError

FAILURES: Final = (
    BadArgumentError,
    ArithmeticError,
    ValueError,
    TypeError,
    LookupError,
    MemoryError,
    RecursionError,
)
"""What a function can raise on values it was not made for."""


@dataclass(frozen=True, slots=True)
class Site:
    """The expression that a node belongs to, for error messages: where it stands, and its source."""

    where: str
    source: Any

    def error(self, message: str, argument: int | None = None) -> MappingError:
        place = f"{self.where}: " if self.where else ""
        text = f"{place}{message}, in {short(self.source)}"
        return MappingError(text, expression=self.source, argument=argument)


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: Any
    may_fail = False

    def emit(self) -> Evaluate:
        value = self.value
        return lambda context: value


@dataclass(frozen=True, slots=True)
class Read:
    """A path or a reduce variable."""

    evaluate: Evaluate
    may_fail = False

    def emit(self) -> Evaluate:
        return self.evaluate


@dataclass(frozen=True, slots=True)
class Failure:
    """What cannot be compiled; it fails when it is reached."""

    site: Site
    message: str
    may_fail = True

    def emit(self) -> Evaluate:
        site, message = self.site, self.message

        def evaluate(context: Mapping[Any, Any]) -> NoReturn:
            raise site.error(message)

        return evaluate


@dataclass(frozen=True, slots=True)
class After:
    """A node whose value counts, and others that are evaluated first because they may fail."""

    first: tuple[Node, ...]
    node: Node
    may_fail = True

    def emit(self) -> Evaluate:
        first = [node.emit() for node in self.first]
        last = self.node.emit()

        def evaluate(context: Mapping[Any, Any]) -> Any:
            for discarded in first:
                discarded(context)
            return last(context)

        return evaluate


@dataclass(frozen=True, slots=True)
class Call:
    """A function applied to nodes, at most as many as it uses."""

    site: Site
    function: Function
    arguments: tuple[Node, ...]
    counted: bool = False
    """It stands in a reduce body, where its work counts."""
    may_fail = True

    def emit(self) -> Evaluate:
        function, site = self.function, self.site
        call, name = function.call, function.name

        def fail(error: Exception) -> NoReturn:
            raise _failure(site, name, error) from (None if isinstance(error, BadArgumentError) else error)

        if self.counted:
            return _emit_counted(function, self.arguments, site, fail)
        if function.impure:
            return _emit_impure(call, [node.emit() for node in self.arguments], site, fail)
        match self.arguments:
            case ():
                return _emit_none(call, fail)
            case (one,):
                return _emit_one(call, one.emit(), fail)
            case (one, Constant(value)):
                return _emit_with_literal(call, one.emit(), value, fail)
            case (one, two):
                return _emit_two(call, one.emit(), two.emit(), fail)
            case (one, Constant(value), Constant(other)):
                return _emit_with_literals(call, one.emit(), value, other, fail)
            case (one, Constant(value), three):
                return _emit_around_literal(call, one.emit(), value, three.emit(), fail)
            case (one, two, three):
                return _emit_three(call, one.emit(), two.emit(), three.emit(), fail)
            case _:
                return _emit_many(call, self.arguments, fail)


@dataclass(frozen=True, slots=True)
class MapNode:
    """An object of a map tree, of which at least one member is computed."""

    members: tuple[tuple[str, Node], ...]
    may_fail = True

    def emit(self) -> Evaluate:
        template = {
            key: node.value if isinstance(node, Constant) else UNDEFINED for key, node in self.members
        }
        computed = [(key, node.emit()) for key, node in self.members if not isinstance(node, Constant)]

        def evaluate(context: Mapping[Any, Any]) -> dict[str, Any]:
            result = template.copy()
            for key, member in computed:
                result[key] = member(context)
            return result

        return evaluate


@dataclass(frozen=True, slots=True)
class ListNode:
    """An array of a map tree."""

    items: tuple[Node, ...]
    may_fail = True

    def emit(self) -> Evaluate:
        items = [node.emit() for node in self.items]
        return lambda context: [item(context) for item in items]


@dataclass(frozen=True, slots=True)
class Reduce:
    """A body run once for every member of a collection, handing an accumulator on."""

    site: Site
    collection: Node
    initial: Node
    body: Node
    may_fail = True

    def emit(self) -> Evaluate:
        collection, initial, body = self.collection.emit(), self.initial.emit(), self.body.emit()
        site = self.site

        def evaluate(context: Mapping[Any, Any]) -> Any:
            source = collection(context)
            frame = Frame(context)
            # Within the body of another one, what is left of its work.
            frame[METER] = meter = context[METER] if type(context) is Frame else Meter()
            try:
                members = _members(source, meter)
                result = _copied(initial(context), meter)
            except BadArgumentError as error:
                raise site.error(f"@reduce: {error}") from None
            frame[INPUT] = source
            for index, (key, item) in enumerate(members):
                frame[INDEX] = index
                frame[KEY] = key
                frame[ITEM] = item
                frame[OUTPUT] = result
                result = body(frame)
            return result

        return evaluate


Node = Constant | Read | Failure | After | Call | MapNode | ListNode | Reduce


@final
class Variable:
    """The key of a reduce variable in a frame. It is no text, so no path reaches it by accident."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"{{{self.name}}}"


ITEM: Final = Variable("$item")
KEY: Final = Variable("$key")
INDEX: Final = Variable("$index")
INPUT: Final = Variable("$input")
OUTPUT: Final = Variable("$output")
METER: Final = Variable("work")
"""Beside them, the work that may still be done."""

VARIABLES: Final[Mapping[str, Variable]] = {
    variable.name: variable for variable in (ITEM, KEY, INDEX, INPUT, OUTPUT)
}


@final
class Frame(dict[Any, Any]):
    """The context inside a reduce body: the variables of this reduce over the context around it."""

    __slots__ = ("_context",)

    def __init__(self, context: Mapping[Any, Any]) -> None:
        super().__init__()
        self._context = context

    def __missing__(self, key: Any) -> Any:
        return self._context[key]


def _failure(site: Site, name: str, error: Exception) -> MappingError:
    if isinstance(error, BadArgumentError):
        place = "" if error.argument is None else f"argument {error.argument} "
        return site.error(f"{{@{name}}}: {place}{error}", error.argument)
    return site.error(f"{{@{name}}}: {type(error).__name__}: {error}")


def _members(source: Any, meter: Meter) -> Sequence[tuple[str, Any]]:
    if isinstance(source, (list, dict, str)):
        meter.spend(2 * len(source) + 1)
    if isinstance(source, list):
        return [(str(index), item) for index, item in enumerate(source)]
    if isinstance(source, dict):
        return [(key, source[key]) for key in ordered_keys(source)]
    if isinstance(source, str):
        return [(str(index), unit) for index, unit in enumerate(units(source))]
    return ()


def _copied(value: Any, meter: Meter) -> Any:
    """A deep copy, so that the accumulator is never the same object as what it started from; null for undefined."""
    if isinstance(value, dict):
        meter.spend(len(value))
        return {
            key: member if member is UNDEFINED else _copied(member, meter) for key, member in value.items()
        }
    if isinstance(value, list):
        meter.spend(len(value))
        return [item if item is UNDEFINED else _copied(item, meter) for item in value]
    return None if value is UNDEFINED else value


Fail = Callable[[Exception], NoReturn]


def _emit_counted(function: Function, nodes: Sequence[Node], site: Site, fail: Fail) -> Evaluate:
    call, cost, shift = function.call, call_cost(function.name), shift_of(function.name)
    computed = [node.emit() for node in nodes]

    def evaluate(context: Mapping[Any, Any]) -> Any:
        environment = []
        if function.impure:
            try:
                environment.append(environment_of(context))
            except MappingError as error:
                raise site.error(str(error)) from None
        try:
            arguments = [argument(context) for argument in computed]
            work = cost
            for argument in arguments:
                work += size_cost(argument, shift)
            meter = context[METER]
            meter.spend(work)
            result = call(*environment, *arguments)
            meter.made(result, shift)
            return result
        except FAILURES as error:
            fail(error)

    return evaluate


def _emit_none(call: Callable[..., Any], fail: Fail) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            result = call()
            return whole(result) if type(result) is float else result
        except FAILURES as error:
            fail(error)

    return evaluate


def _emit_one(call: Callable[..., Any], one: Evaluate, fail: Fail) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            result = call(one(context))
            return whole(result) if type(result) is float else result
        except FAILURES as error:
            fail(error)

    return evaluate


def _emit_with_literal(call: Callable[..., Any], one: Evaluate, literal: Any, fail: Fail) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            result = call(one(context), literal)
            return whole(result) if type(result) is float else result
        except FAILURES as error:
            fail(error)

    return evaluate


def _emit_two(call: Callable[..., Any], one: Evaluate, two: Evaluate, fail: Fail) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            result = call(one(context), two(context))
            return whole(result) if type(result) is float else result
        except FAILURES as error:
            fail(error)

    return evaluate


def _emit_with_literals(
    call: Callable[..., Any], one: Evaluate, literal: Any, other: Any, fail: Fail
) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            result = call(one(context), literal, other)
            return whole(result) if type(result) is float else result
        except FAILURES as error:
            fail(error)

    return evaluate


def _emit_around_literal(
    call: Callable[..., Any], one: Evaluate, literal: Any, three: Evaluate, fail: Fail
) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            result = call(one(context), literal, three(context))
            return whole(result) if type(result) is float else result
        except FAILURES as error:
            fail(error)

    return evaluate


def _emit_three(
    call: Callable[..., Any], one: Evaluate, two: Evaluate, three: Evaluate, fail: Fail
) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            result = call(one(context), two(context), three(context))
            return whole(result) if type(result) is float else result
        except FAILURES as error:
            fail(error)

    return evaluate


def _emit_many(call: Callable[..., Any], nodes: Sequence[Node], fail: Fail) -> Evaluate:
    template = [node.value if isinstance(node, Constant) else None for node in nodes]
    computed = [(index, node.emit()) for index, node in enumerate(nodes) if not isinstance(node, Constant)]

    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            arguments = template.copy()
            for index, argument in computed:
                arguments[index] = argument(context)
            result = call(*arguments)
            return whole(result) if type(result) is float else result
        except FAILURES as error:
            fail(error)

    return evaluate


def _emit_impure(call: Callable[..., Any], arguments: Sequence[Evaluate], site: Site, fail: Fail) -> Evaluate:
    def evaluate(context: Mapping[Any, Any]) -> Any:
        try:
            environment = environment_of(context)
        except MappingError as error:
            raise site.error(str(error)) from None
        try:
            result = call(environment, *[argument(context) for argument in arguments])
            return whole(result) if type(result) is float else result
        except FAILURES as error:
            fail(error)

    return evaluate
