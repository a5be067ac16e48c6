"""A function of the language as the compiler sees it, and how functions report a wrong argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hotmesh.core.pipe.instant import Date, as_date
from hotmesh.core.values import UNDEFINED

ENVIRONMENT_PARAMETER: Final = "environment"

Functions = Mapping[str, Callable[..., Any]]
"""The functions of a domain by their published names."""

VARIADIC: Final = 1 << 30
"""`Function.most` of a function that takes any number of arguments."""

_TAKES_REST: Final = 0x04


class BadArgumentError(Exception):
    """An argument cannot be used; `argument` counts from 1, None when it is not about one argument."""

    def __init__(self, message: str, argument: int | None = 1) -> None:
        super().__init__(message)
        self.argument = argument


@dataclass(frozen=True, slots=True)
class Function:
    """One function: `call(*arguments)`, or `call(environment, *arguments)` if it depends on the world.

    With fewer than `least` arguments it always fails; those past `most` are ignored.
    """

    name: str
    call: Callable[..., Any]
    least: int
    most: int
    impure: bool


def describe(name: str, call: Callable[..., Any]) -> Function:
    """The function's entry, read off its signature: parameters without default are the ones it cannot do without."""
    code = call.__code__
    impure = bool(code.co_argcount) and code.co_varnames[0] == ENVIRONMENT_PARAMETER
    count = code.co_argcount - impure
    defaults = len(call.__defaults__ or ())
    most = VARIADIC if code.co_flags & _TAKES_REST else count
    return Function(name, call, count - defaults, most, impure)


def kind(value: Any) -> str:
    """What a value is, as an error message says it."""
    if value is UNDEFINED:
        return "undefined"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {'true' if value else 'false'}"
    if isinstance(value, str):
        return f"the text {short(value, 40)}"
    if isinstance(value, (int, float)):
        return f"the number {value!r}"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    return "a date" if as_date(value) is not None or isinstance(value, Date) else f"a {type(value).__name__}"


def short(value: Any, most: int = 100) -> str:
    """A value on one line, cut to `most` characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else text[: most - 1] + "…"
