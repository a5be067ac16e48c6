"""Functions on the 32 bits of whole numbers. Operands are reduced to 32 bits first."""

from __future__ import annotations

from typing import Any, Final

from hotmesh.core.pipe.coercion import to_int32, to_uint32
from hotmesh.core.pipe.function import Functions
from hotmesh.core.values import UNDEFINED


def and_(a: Any = UNDEFINED, b: Any = UNDEFINED) -> int:
    """The bits that both have, as a signed 32-bit number.

    Example: (29, 15) → 13
    Example: (2147483648, -1) → -2147483648
    """
    return to_int32(a) & to_int32(b)


def or_(a: Any = UNDEFINED, b: Any = UNDEFINED) -> int:
    """The bits that either has, as a signed 32-bit number.

    Example: (8, 5) → 13
    """
    return to_int32(a) | to_int32(b)


def xor(a: Any = UNDEFINED, b: Any = UNDEFINED) -> int:
    """The bits in which they differ, as a signed 32-bit number.

    Example: (6, 3) → 5
    """
    return to_int32(a) ^ to_int32(b)


def left_shift(a: Any = UNDEFINED, b: Any = UNDEFINED) -> int:
    """`a` shifted left by `b` modulo 32 bits, wrapped to a signed 32-bit number.

    Example: (1, 4) → 16
    Example: (1, 31) → -2147483648
    """
    return to_int32(to_int32(a) << (to_uint32(b) & 31))


def right_shift(a: Any = UNDEFINED, b: Any = UNDEFINED) -> int:
    """`a` shifted right by `b` modulo 32 bits; the sign is kept.

    Example: (-256, 4) → -16
    """
    return to_int32(a) >> (to_uint32(b) & 31)


def unsigned_right_shift(a: Any = UNDEFINED, b: Any = UNDEFINED) -> int:
    """`a` as an unsigned number shifted right by `b` modulo 32 bits: 0 to 4294967295.

    Example: (-1, 28) → 15
    """
    return to_uint32(a) >> (to_uint32(b) & 31)


FUNCTIONS: Final[Functions] = {
    "and": and_,
    "or": or_,
    "xor": xor,
    "leftShift": left_shift,
    "rightShift": right_shift,
    "unsignedRightShift": unsigned_right_shift,
}
