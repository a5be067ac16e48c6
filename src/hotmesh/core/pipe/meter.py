"""How much work an expression may do. A reduce over a long list within another one, or one that doubles a text each time,
would hold up every job of an engine, and the next engine after it.

Only what runs inside of reduce bodies is counted: the rest of an expression does no more than its text has calls. A unit is
about what a call of a function costs; a function that looks at each element costs one for each, one that copies in one go
costs one for some hundred bytes.
"""

from __future__ import annotations

from collections.abc import Sized as _HasLength
from typing import Any, Final, TypeVar, final

from hotmesh.core.pipe.function import BadArgumentError

Sized = TypeVar("Sized", bound=_HasLength)

MOST_WORK: Final = 2_000_000
"""Units of one outermost reduce: one or two seconds."""

LONGEST: Final = 2**22
"""Characters of a text that a reduce makes of shorter ones: four times the largest payload by default."""

MOST_ELEMENTS: Final = 2**20
"""Of an array that an expression makes of something that is none, or makes longer: about two for each byte of a payload."""

_COPIED: Final = 8
"""Powers of two of elements that are copied in one go for one unit."""

_TEXT: Final = 9
"""The same of characters."""

COPYING: Final = frozenset(
    f"array.{name}"
    for name in ("get", "length", "concat", "pop", "push", "reverse", "shift", "slice", "splice", "unshift")
) | {"object.get"}
"""Functions that touch no element by itself."""


@final
class Meter:
    """What is left of the work that one outermost reduce may do."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_WORK

    def spend(self, cost: int) -> None:
        """Count some work. Raises BadArgumentError where there is too much of it."""
        self.left -= cost
        if self.left < 0:
            raise BadArgumentError(
                f"the expression takes too much work (more than {MOST_WORK:,} calls and elements): reduce over less, or let a "
                "worker do it",
                None,
            )

    def made(self, value: Any, shift: int) -> None:
        """Count what a call has made. Raises BadArgumentError also where that is far larger than anything that can be stored."""
        if isinstance(value, str):
            if len(value) > LONGEST:
                raise BadArgumentError(f"makes the text too long (more than {LONGEST:,} characters)", None)
            self.spend(len(value) >> _TEXT)
        elif isinstance(value, (list, dict)):
            checked(value)
            self.spend(len(value) >> shift)


def checked(items: Sized) -> Sized:
    """What an array is made of, or the array. Raises BadArgumentError where that has more than `MOST_ELEMENTS`."""
    if len(items) > MOST_ELEMENTS:
        raise BadArgumentError(f"makes the array too long (more than {MOST_ELEMENTS:,} elements)", None)
    return items


def call_cost(name: str) -> int:
    """What a call of a function costs, whatever it is given."""
    if name == "string.search":
        return 50
    return 20 if name.startswith(("date.", "cron.")) else 1


def size_cost(value: Any, shift: int) -> int:
    """What it costs to go through a value, or to make it."""
    if isinstance(value, str):
        return len(value) >> _TEXT
    if isinstance(value, (list, dict)):
        return len(value) >> shift
    return 0


def shift_of(name: str) -> int:
    """How the elements that a function is given count."""
    return _COPIED if name in COPYING else 0
