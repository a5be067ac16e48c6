"""Functions of one operand: negation and conversion to a number."""

from __future__ import annotations

from typing import Any, Final

from hotmesh.core.pipe.coercion import to_boolean, to_int32, to_number
from hotmesh.core.pipe.function import Functions
from hotmesh.core.values import UNDEFINED


def not_(value: Any = UNDEFINED) -> bool:
    """Whether the value is false: undefined, null, false, 0, NaN or empty text.

    Example: (0) → true
    Example: ([]) → false
    """
    return not to_boolean(value)


def positive(value: Any = UNDEFINED) -> float:
    """The value as a number; NaN if it is none.

    Example: ("42") → 42
    Example: ("0x10") → 16
    Example: (undefined) → NaN
    """
    return to_number(value)


def negative(value: Any = UNDEFINED) -> float:
    """The negated number.

    Example: ("42") → -42
    """
    return -to_number(value)


def bitwise_not(value: Any = UNDEFINED) -> int:
    """The complement of the value's 32 bits, as a signed number.

    Example: (5) → -6
    """
    return ~to_int32(value)


FUNCTIONS: Final[Functions] = {
    "not": not_,
    "positive": positive,
    "negative": negative,
    "bitwise_not": bitwise_not,
}
