"""Functions that compare and choose. All arguments have been evaluated before; nothing here is lazy."""

from __future__ import annotations

from typing import Any, Final

from hotmesh.core.pipe.coercion import less_than, loose_equals, strict_equals, to_boolean
from hotmesh.core.pipe.function import Functions
from hotmesh.core.values import UNDEFINED


def ternary(condition: Any = UNDEFINED, if_true: Any = UNDEFINED, if_false: Any = UNDEFINED) -> Any:
    """The second argument if the first is true, else the third; empty arrays and objects are true.

    Example: (true, "T", "F") → "T"
    Example: ([], "T", "F") → "T"
    Example: ("", "T", "F") → "F"
    """
    return if_true if to_boolean(condition) else if_false


def equality(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether they are equal after conversion; null equals undefined and nothing else.

    Example: (1, "1") → true
    Example: (null, 0) → false
    """
    return loose_equals(a, b)


def strict_equality(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether they are the same kind and value; arrays and objects only if they are the very same one.

    Example: (1, "1") → false
    Example: ([], []) → false
    """
    return strict_equals(a, b)


def inequality(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """The opposite of `equality`.

    Example: (1, 2) → true
    """
    return not loose_equals(a, b)


def strict_inequality(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """The opposite of `strict_equality`.

    Example: (1, "1") → true
    """
    return not strict_equals(a, b)


def greater_than(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether a > b: two texts by their UTF-16 units, all else as numbers; false if one is not a number.

    Example: ("10", "9") → false
    Example: ("10", 9) → true
    """
    return less_than(b, a) is True


def less_than_(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether a < b, compared as by `greater_than`.

    Example: ("", 1) → true
    """
    return less_than(a, b) is True


def greater_than_or_equal(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether a >= b, compared as by `greater_than`.

    Example: (null, 0) → true
    """
    return less_than(a, b) is False


def less_than_or_equal(a: Any = UNDEFINED, b: Any = UNDEFINED) -> bool:
    """Whether a <= b, compared as by `greater_than`.

    Example: (10, 9.99) → false
    """
    return less_than(b, a) is False


def nullish(a: Any = UNDEFINED, b: Any = UNDEFINED) -> Any:
    """The first argument unless it is null or undefined, then the second; 0, "" and false are kept.

    Example: (null, "d") → "d"
    Example: (0, "d") → 0
    """
    return b if a is None or a is UNDEFINED else a


FUNCTIONS: Final[Functions] = {
    "ternary": ternary,
    "equality": equality,
    "strict_equality": strict_equality,
    "inequality": inequality,
    "strict_inequality": strict_inequality,
    "greater_than": greater_than,
    "less_than": less_than_,
    "greater_than_or_equal": greater_than_or_equal,
    "less_than_or_equal": less_than_or_equal,
    "nullish": nullish,
}
